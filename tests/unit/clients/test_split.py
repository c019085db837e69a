import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from shortlist.clients import CallEvent, Split
from shortlist.clients.errors import ServableNotFound
from shortlist.clients.types import State
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, ranking

USERS = [f"user-{i}" for i in range(4000)]
SPLIT = Split({"stable": 0.9, "canary": 0.1})


def test_shares_are_as_requested() -> None:
    counts = Counter(SPLIT.label_for(user) for user in USERS)
    assert counts["canary"] == pytest.approx(400, abs=60)  # three standard deviations


def test_a_user_keeps_the_label_in_another_process() -> None:
    code = (
        "from shortlist.clients import Split\n"
        "split = Split({'stable': 0.9, 'canary': 0.1})\n"
        "print(','.join(split.label_for(f'user-{i}') for i in range(200)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert printed.strip().split(",") == [SPLIT.label_for(user) for user in USERS[:200]]


def test_a_growing_canary_keeps_its_users() -> None:
    few = {user for user in USERS if SPLIT.label_for(user) == "canary"}
    more = Split({"stable": 0.7, "canary": 0.3})
    assert few <= {user for user in USERS if more.label_for(user) == "canary"}


def test_another_salt_assigns_all_users_again() -> None:
    other = Split({"stable": 0.9, "canary": 0.1}, salt="second experiment")
    assert [SPLIT.label_for(u) for u in USERS] != [other.label_for(u) for u in USERS]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"shares": {}}, "at least one label"),
        ({"shares": {"stable": 0.5}}, "must add up to 1, got 0.5"),
        ({"shares": {"stable": 1.5, "canary": -0.5}}, r"must be in \[0, 1\]"),
        ({"shares": {"old": 0.5, "new": 0.5}}, "fallback 'stable' is not one of"),
        ({"shares": {"": 1.0}}, "non-empty"),
    ],
)
def test_wrong_shares_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Split(**arguments)


def test_each_user_is_answered_by_the_version_of_the_label(client: Any) -> None:
    users = USERS[:100]
    retrievals = client.retrieve(users, k=2, label=SPLIT)
    assert [retrieval.user_id for retrieval in retrievals] == users
    for retrieval in retrievals:
        assert list(retrieval) == ranking(retrieval.user_id)[:2]
        assert retrieval.label == SPLIT.label_for(retrieval.user_id)
        assert retrieval.version == {"stable": 1, "canary": 2}[retrieval.label]
    assert {retrieval.label for retrieval in retrievals} == {"stable", "canary"}


def test_the_hook_tells_the_labels_apart(transport: str, server: ToyServer) -> None:
    events: list[CallEvent] = []
    with make_client(transport, server.address(transport), hooks=[events.append]) as client:
        client.retrieve(USERS[:100], label=SPLIT)
    assert {(event.label, event.version) for event in events} == {("stable", 1), ("canary", 2)}


def test_users_of_a_label_that_is_gone_get_the_fallback(client: Any, server: ToyServer) -> None:
    del server.models["retrieval_brute_force"].labels["canary"]
    retrievals = client.retrieve(USERS[:50], k=1, label=SPLIT)
    assert {retrieval.label for retrieval in retrievals} == {"stable"}
    assert {retrieval.version for retrieval in retrievals} == {1}


def test_users_of_a_label_on_an_unloaded_version_get_the_fallback(
    client: Any, server: ToyServer
) -> None:
    server.models["retrieval_brute_force"].versions[2] = State.END
    retrievals = client.retrieve(USERS[:50], k=1, label=SPLIT)
    assert {retrieval.version for retrieval in retrievals} == {1}


def test_a_missing_fallback_is_an_error(client: Any, server: ToyServer) -> None:
    server.models.clear()
    with pytest.raises(ServableNotFound, match="retrieval_brute_force"):
        client.retrieve(USERS[:50], label=SPLIT)
