"""Histories and features in requests, over each transport."""

from collections.abc import Mapping
from typing import Any

import pytest

from shortlist.clients import CallEvent, Filter, Limits, Split
from shortlist.clients.errors import SignatureNotFound, Unsupported
from shortlist.clients.testing import FakeSignature
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import CANDIDATES, UNKNOWN, ToyServer, ranking, score


def test_a_history_personalises_and_its_candidates_are_left_out(client: Any) -> None:
    (retrieval,) = client.retrieve(["42"], history=[["c01", "c03"]], k=3)
    expected = [pair for pair in ranking("42/c01/c03") if pair[0] not in ("c01", "c03")]
    assert list(retrieval) == expected[:3]
    assert (retrieval.user_id, retrieval.known_user, retrieval.known_history) == ("42", True, 2)
    (kept,) = client.retrieve(["42"], history=[["c01", "c03"]], k=3, exclude_history=False)
    assert list(kept) == ranking("42/c01/c03")[:3]


def test_nobody_needs_no_user_id(client: Any) -> None:
    first, second = client.retrieve(history=[["c01"], ["c02", "nope"]], k=2)
    assert [list(first), list(second)] == [ranking("c01")[:2], ranking("c02/nope")[:2]]
    assert [(row.user_id, row.known_user, row.known_history) for row in (first, second)] == [
        ("", False, 1),
        ("", False, 1),
    ]
    assert client.retrieve(["", ""], history=[["c01"], ["c02", "nope"]], k=2) == [first, second]
    (only_features,) = client.retrieve(features=[{"device": "mobile"}], k=2)
    assert list(only_features) == ranking("device=mobile")[:2]
    assert (only_features.known_history, only_features.known_features) == (0, 1)


def test_features_that_the_model_knows_are_counted(client: Any, server: ToyServer) -> None:
    model = server.models["retrieval_brute_force"]
    model.unknown_features = {"colour"}
    features = [{"device": "tv", "colour": "red"}, {"likes": ["a", "b"]}]
    for method in (client.retrieve, client.embed):
        assert [row.known_features for row in method(features=features)] == [1, 2]
    assert client.retrieve(["42"])[0].known_features is None


def test_an_older_servable_does_not_say_which_features_it_knows(
    client: Any, server: ToyServer
) -> None:
    def older(full: FakeSignature) -> FakeSignature:
        def run(inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
            outputs = full.run(inputs, version)
            return {name: outputs[name] for name in outputs if name != "known_features"}

        return FakeSignature(inputs=full.inputs, outputs=full.outputs, run=run)

    signatures = server.models["retrieval_brute_force"].signatures
    for name in ("retrieve_by_query", "embed_by_query"):
        signatures[name] = older(signatures[name])
    for method in (client.retrieve, client.embed):
        (row,) = method(features=[{"device": "tv"}])
        assert (row.known_history, row.known_features) == (0, None)


def test_rows_are_padded_at_their_end(client: Any, server: ToyServer) -> None:
    client.retrieve(
        ["42", "7", ""],
        history=[["c01", "c02"], [], ["c03"]],
        history_ages=[[60, None], [], [0.5]],
        history_weights=[[1, 2.5], [], [3]],
        features=[{"device": "mobile", "age": 33, "likes": ["a", "b"]}, {}, {"price": 0.25}],
    )
    inputs = server.calls[-1].inputs
    assert inputs["user_id"] == ["42", "7", ""]
    assert inputs["history"] == [["c01", "c02"], ["", ""], ["c03", ""]]
    assert inputs["history_age"] == [[60.0, -1.0], [-1.0, -1.0], [0.5, -1.0]]
    assert inputs["history_weight"] == [[1.0, 2.5], [0.0, 0.0], [3.0, 0.0]]
    assert inputs["features"] == [
        ["device=mobile", "age=33", "likes=a", "likes=b"],
        ["", "", "", ""],
        ["price=0.25", "", "", ""],
    ]
    assert inputs["exclude_history"] is True
    assert server.calls[-1].history == [["c01", "c02"], [], ["c03"]]


def test_what_is_not_given_is_neutral(client: Any, server: ToyServer) -> None:
    client.retrieve(["42", "7"], history=[[], []])
    inputs = dict(server.calls[-1].inputs)
    assert inputs == {
        "user_id": ["42", "7"],
        "k": 10,
        "exclude_history": True,
        "exclude_seen": False,
        "history": [[""], [""]],
        "history_age": [[], []],
        "history_weight": [[], []],
        "features": [[""], [""]],
        "exclude": [[""], [""]],
        **{key: [] for key in ("filter_any", "filter_all", "filter_min", "filter_max")},
    }
    client.retrieve(["42", "7"], features=[{}, {}], exclude_history=True)
    assert server.calls[-1].inputs == {**inputs, "exclude_history": False}


def test_an_empty_history_changes_nothing(client: Any) -> None:
    (plain,) = client.retrieve(["42"], k=3)
    (empty,) = client.retrieve(["42"], history=[[]], k=3)
    assert list(empty) == list(plain)
    assert (empty.known_history, plain.known_history) == (0, None)


def test_calls_without_history_use_the_signatures_of_older_servables(
    client: Any, server: ToyServer
) -> None:
    client.retrieve(["42"])
    client.retrieve(["42"], exclude=["c01"], exclude_history=False)
    client.embed(["42"])
    client.retrieve(["42"], history=[["c01"]])
    client.embed(["42"], history=[["c01"]])
    assert server.signatures() == [
        *("serving_default", "retrieve", "embed", "retrieve_by_query", "embed_by_query"),
    ]


def test_exclusions_and_filters_hold_with_a_history(client: Any) -> None:
    conditions = Filter(any={"genre": ["even"]}, min={"year": 1995}, max={"year": 2000})
    options: dict[str, Any] = {"history": [["c08"], []], "filter": conditions}
    users = ["42", "7"]
    with_history = ranking("42/c08", [CANDIDATES[6], CANDIDATES[10]])
    without = ranking("7", [CANDIDATES[i] for i in (6, 8, 10)])
    first, second = client.retrieve(users, **options)
    assert [list(first), list(second)] == [with_history, without]
    first, second = client.retrieve(users, exclude={"7": [without[0][0]]}, **options)
    assert [list(first), list(second)] == [with_history, without[1:]]
    (seen,) = client.retrieve(["42"], history=[["c02"]], exclude_seen=True, k=100)
    assert len(seen) == len(CANDIDATES) - 3


def test_a_large_batch_keeps_each_history_with_its_user(transport: str, server: ToyServer) -> None:
    users = [f"user-{i}" for i in range(250)]
    history = [CANDIDATES[i % 7 : i % 7 + i % 4] for i in range(250)]
    features = [{"row": i} for i in range(250)]
    with make_client(transport, server.address(transport), limits=Limits(batch_size=100)) as client:
        retrievals = client.retrieve(users, history=history, features=features, k=2)
        embeddings = client.embed(users, history=history, features=features)
    queries = [
        "/".join([user, *row, f"row={i}"])
        for i, (user, row) in enumerate(zip(users, history, strict=True))
    ]
    for retrieval, embedding, query, row in zip(
        retrievals, embeddings, queries, history, strict=True
    ):
        assert list(retrieval) == [pair for pair in ranking(query) if pair[0] not in row][:2]
        assert retrieval.known_history == embedding.known_history == len(row)
        assert embedding.values == pytest.approx([score(query, str(i)) for i in range(3)])
    batches = [call.batch_size for call in server.calls if call.operation == "predict"]
    assert sorted(batches) == [50, 50, 100, 100, 100, 100]


def test_an_embedding_follows_the_history(client: Any) -> None:
    first, second = client.embed([UNKNOWN, "7"], history=[["c01", "nope"], []])
    assert first.values == pytest.approx([score(f"{UNKNOWN}/c01/nope", str(i)) for i in range(3)])
    assert second.values == pytest.approx([score("7", str(i)) for i in range(3)])
    assert (first.known_user, first.known_history, first.version) == (False, 1, 2)
    assert (second.known_user, second.known_history) == (True, 0)
    (nobody,) = client.embed(features=[{"device": "tv"}])
    assert (nobody.user_id, nobody.known_user) == ("", False)


@pytest.mark.parametrize(
    ("call", "signature"), [("retrieve", "retrieve_by_query"), ("embed", "embed_by_query")]
)
def test_an_older_version_says_that_it_takes_no_history(
    client: Any, server: ToyServer, call: str, signature: str
) -> None:
    text = (
        f"^this version takes no history and no features: servable 'retrieval_brute_force'.* "
        f"has no signature '{signature}'.*; it has: .*serving_default"
    )
    method = getattr(client, call)
    method(["42"], history=[["c01"]])  # the client knows the signature by now
    del server.models["retrieval_brute_force"].signatures[signature]
    with pytest.raises(SignatureNotFound, match=text):
        method(["42"], history=[["c01"]])
    with make_client("grpc", server.address("grpc")) as fresh:
        with pytest.raises(SignatureNotFound, match=f"{text}"):
            getattr(fresh, call)(features=[{"device": "tv"}])
        with pytest.raises(SignatureNotFound, match=r"export the model again, or .*no history, no"):
            getattr(fresh, call)(history=[["c01"]])
    assert len(method(["42"])) == 1


def test_a_signature_without_features_says_so(client: Any, server: ToyServer) -> None:
    signatures = server.models["retrieval_brute_force"].signatures
    full = signatures["embed_by_query"]
    inputs = {name: spec for name, spec in full.inputs.items() if name != "features"}
    signatures["embed_by_query"] = FakeSignature(inputs=inputs, outputs=full.outputs, run=full.run)
    assert client.embed(["42"], history=[["c01"]])[0].known_history == 1
    with pytest.raises(
        Unsupported, match=r"'embed_by_query' of .* has no input 'features'; it has"
    ):
        client.embed(["42"], features=[{"device": "tv"}])


def test_a_history_is_sent_again_after_a_failure(transport: str, server: ToyServer) -> None:
    events: list[CallEvent] = []
    with make_client(transport, server.address(transport), hooks=[events.append]) as client:
        client.retrieve(["42"], history=[["c01"]])
        server.fail("UNAVAILABLE")
        (retrieval,) = client.retrieve(["42"], history=[["c01"]], k=1)
    assert retrieval.known_history == 1
    assert [call.history for call in server.calls[-2:]] == [[["c01"]]] * 2
    assert [(event.operation, event.attempts) for event in events] == [
        *(("metadata", 1), ("retrieve", 1), ("retrieve", 2)),
    ]


# --- splits ----------------------------------------------------------------------------

SPLIT = Split({"stable": 0.5, "canary": 0.5})


def test_a_split_assigns_users_by_id_whatever_their_history(client: Any) -> None:
    users = [f"user-{i}" for i in range(40)]
    history = [[CANDIDATES[i % 9]] for i in range(40)]
    retrievals = client.retrieve(users, history=history, k=1, label=SPLIT)
    for user, row, retrieval in zip(users, history, retrievals, strict=True):
        assert (retrieval.user_id, retrieval.label) == (user, SPLIT.label_for(user))
        assert list(retrieval) == [p for p in ranking(f"{user}/{row[0]}") if p[0] not in row][:1]


def test_a_split_assigns_nobodies_by_history_and_features(client: Any) -> None:
    history = [[name] for name in CANDIDATES]
    features = [{"row": i % 2} for i in range(len(CANDIDATES))]
    first = client.retrieve(history=history, features=features, k=1, label=SPLIT)
    again = client.retrieve(history=history[::-1], features=features[::-1], k=1, label=SPLIT)
    assert [row.label for row in again] == [row.label for row in first][::-1]
    assert {row.label for row in first} == {"stable", "canary"}
    others = client.retrieve(history=history, k=1, label=SPLIT)
    assert [row.label for row in others] != [row.label for row in first]


def test_histories_of_a_label_that_is_gone_go_to_the_fallback(
    client: Any, server: ToyServer
) -> None:
    del server.models["retrieval_brute_force"].labels["canary"]
    history = [[name] for name in CANDIDATES]
    retrievals = client.retrieve(history=history, k=1, label=SPLIT)
    assert {retrieval.label for retrieval in retrievals} == {"stable"}
    assert [retrieval.known_history for retrieval in retrievals] == [1] * len(CANDIDATES)
