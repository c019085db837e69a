from typing import Any

import pytest

from shortlist.clients import Filter, Limits
from shortlist.clients.errors import (
    InvalidRequest,
    LabelNotFound,
    ServableNotFound,
    SignatureNotFound,
)
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import CANDIDATES, UNKNOWN, ToyServer, ranking


def test_candidates_come_best_first_and_cut_to_k(client: Any) -> None:
    first, second = client.retrieve(["42", "7"], k=3)
    assert list(first) == ranking("42")[:3]
    assert list(second) == ranking("7")[:3]
    assert (first.user_id, first.known_user, first.version) == ("42", True, 2)


def test_a_retrieval_is_iterated_measured_and_indexed(client: Any) -> None:
    (retrieval,) = client.retrieve(["42"], k=4)
    assert len(retrieval) == 4
    assert retrieval[0] == ranking("42")[0]
    assert retrieval[1:3] == ranking("42")[1:3]
    assert [name for name, _ in retrieval] == list(retrieval.candidate_ids)
    with pytest.raises(AttributeError):
        retrieval.scores = ()


def test_an_unknown_user_is_marked(client: Any) -> None:
    assert client.retrieve([UNKNOWN], k=1)[0].known_user is False


@pytest.mark.parametrize(
    ("which", "version"), [({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2)]
)
def test_version_and_label_choose_the_servable(
    client: Any, which: dict[str, Any], version: int
) -> None:
    assert client.retrieve(["42"], k=1, **which)[0].version == version


def test_more_than_the_fixed_k_uses_the_signature_with_k(client: Any, server: ToyServer) -> None:
    assert list(client.retrieve(["42"], k=20)[0]) == ranking("42")[:20]
    asked = server.signatures()
    assert asked == ["serving_default", "retrieve"]
    client.retrieve(["42"], k=20)  # by now the width is known
    assert server.signatures() == [
        *asked,
        "retrieve",
    ]


def test_more_than_the_corpus_gives_the_whole_corpus(client: Any) -> None:
    assert list(client.retrieve(["42"], k=1000)[0]) == ranking("42")


def test_exclusions_hold_for_all_users_or_for_each(client: Any) -> None:
    best = [name for name, _ in ranking("42")[:2]]
    (retrieval,) = client.retrieve(["42"], k=3, exclude=best)
    assert list(retrieval) == ranking("42")[2:5]
    first, second = client.retrieve(["42", "7"], k=3, exclude={"42": best})
    assert list(first) == ranking("42")[2:5]
    assert list(second) == ranking("7")[:3]


def test_seen_candidates_are_excluded_on_demand(client: Any) -> None:
    (retrieval,) = client.retrieve(["42"], k=len(CANDIDATES), exclude_seen=True)
    assert not {"c00", "c01"} & set(retrieval.candidate_ids)
    assert len(retrieval) == len(CANDIDATES) - 2  # the padding is gone


def test_a_filter_leaves_only_what_passes(client: Any) -> None:
    conditions = Filter(any={"genre": ["even"]}, min={"year": 1995}, max={"year": 2000})
    (retrieval,) = client.retrieve(["42"], k=10, filter=conditions)
    allowed = [CANDIDATES[i] for i in (6, 8, 10)]
    assert list(retrieval) == ranking("42", allowed)


def test_nothing_left_is_an_empty_retrieval(client: Any) -> None:
    (retrieval,) = client.retrieve(["42"], filter=Filter(all={"genre": ["even", "odd"]}))
    assert list(retrieval) == []


def test_a_large_batch_is_split_and_comes_back_in_order(transport: str, server: ToyServer) -> None:
    users = [f"user-{i}" for i in range(1050)]
    with make_client(transport, server.address(transport), limits=Limits(batch_size=100)) as client:
        retrievals = client.retrieve(users, k=2)
    assert [retrieval.user_id for retrieval in retrievals] == users
    assert all(list(retrieval) == ranking(retrieval.user_id)[:2] for retrieval in retrievals[::97])
    batches = [call.batch_size for call in server.calls if call.operation == "predict"]
    assert sorted(batches) == [50] + [100] * 10
    assert server.most_active <= 4


def test_unknown_model_lists_what_the_server_has(client: Any) -> None:
    with pytest.raises(
        ServableNotFound, match=r"no servable 'retrieval_scann'.*it serves: retrieval_brute_force"
    ):
        client.retrieve(["42"], model="retrieval_scann")


def test_unknown_version_lists_the_versions(client: Any) -> None:
    with pytest.raises(
        ServableNotFound, match=r"version 9.*its versions: 2 AVAILABLE, 1 AVAILABLE"
    ):
        client.retrieve(["42"], version=9)


def test_unknown_label_is_invalid_request(client: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=r"label 'nightly'.*its versions: 2 AVAILABLE"
    ) as caught:
        client.retrieve(["42"], label="nightly")
    assert type(caught.value) is LabelNotFound


def test_a_label_of_an_unknown_model_is_an_unknown_model(client: Any) -> None:
    with pytest.raises(ServableNotFound, match="no servable 'nope'"):
        client.retrieve(["42"], model="nope", label="stable")


def test_a_servable_that_cannot_filter_says_so(client: Any, server: ToyServer) -> None:
    servable = server.models["retrieval_brute_force"]
    servable.signatures = {"serving_default": servable.signatures["serving_default"]}
    lacks = "one signature, serving_default, and cannot exclude candidates; publish it"
    with pytest.raises(SignatureNotFound, match=lacks):
        client.retrieve(["42"], exclude=["c01"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"user_ids": "42"}, r"use \['42'\]"),
        ({"user_ids": []}, "user_ids is empty"),
        ({"user_ids": [42]}, r"takes strings, got 42; use str\(42\)"),
        ({"user_ids": ["42"], "k": 0}, "k must be .* at least 1, got 0"),
        ({"user_ids": ["42"], "k": True}, "k must be"),
        ({"user_ids": ["42"], "version": 1, "label": "stable"}, "not both"),
        ({"user_ids": ["42"], "version": -1}, "version must be"),
        ({"user_ids": ["42"], "label": ""}, "label must be"),
        ({"user_ids": ["42"], "model": ""}, "model must be"),
        ({"user_ids": ["42"], "timeout": 0}, "timeout must be a positive"),
        ({"user_ids": ["42"], "exclude": "c01"}, r"use \['c01'\]"),
    ],
)
def test_wrong_arguments_are_value_errors_before_anything_is_sent(
    client: Any, server: ToyServer, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        client.retrieve(**arguments)
    assert server.calls == []
