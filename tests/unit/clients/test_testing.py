"""The fake server for applications' tests: its documented example and scripted answers."""

import inspect
import textwrap
from typing import Any

import pytest

from shortlist.clients import Filter, RetryPolicy, testing
from shortlist.clients.errors import DeadlineExceeded, LabelNotFound, Overloaded
from shortlist.clients.testing import FakeModel, FakeServer
from tests.unit.clients.conftest import make_client


def test_the_example_of_the_docstring_works() -> None:
    text = inspect.getdoc(testing) or ""
    exec(textwrap.dedent(text.partition(":\n\n")[2]), {})


@pytest.fixture
def fake() -> Any:
    candidates = {"a": {"year": 1990}, "b": {"year": 2000}, "c": {"year": 2010}}
    model = FakeModel(candidates=candidates, rankings={"42": [("c", 0.5), ("b", 0.25)]})
    with FakeServer({"music_ivf": model}) as server:
        yield server


@pytest.fixture
def over(transport: str, fake: FakeServer) -> Any:
    address = fake.rest_address if transport == "rest" else fake.grpc_address
    with make_client(
        transport, address, model="music_ivf", retry=RetryPolicy(max_attempts=1)
    ) as client:
        yield client


def test_scripted_rankings_are_answered_and_others_are_reproducible(over: Any) -> None:
    scripted, other = over.retrieve(["42", "7"])
    assert list(scripted) == [("c", 0.5), ("b", 0.25)]
    assert list(other) == FakeModel(candidates={"a": {}, "b": {}, "c": {}}).ranking("7")


def test_filters_and_exclusions_apply_to_scripted_rankings(over: Any) -> None:
    assert over.retrieve(["42"], filter=Filter(max={"year": 2005}))[0].candidate_ids == ("b",)
    assert over.retrieve(["42"], exclude=["c"])[0].candidate_ids == ("b",)


def test_failures_are_as_many_as_scripted(over: Any, fake: FakeServer) -> None:
    fake.fail("RESOURCE_EXHAUSTED", "too busy", times=2)
    for _ in range(2):
        with pytest.raises(Overloaded, match="too busy"):
            over.retrieve(["42"], k=1)
    assert len(over.retrieve(["42"], k=1)) == 1
    assert [call.model for call in fake.calls] == ["music_ivf"] * 3


def test_a_held_server_does_not_answer(over: Any, fake: FakeServer) -> None:
    fake.hold()
    with pytest.raises(DeadlineExceeded):
        over.retrieve(["42"], timeout=0.1)
    fake.resume()
    assert len(over.retrieve(["42"])) == 1


def test_labels_can_move(over: Any, fake: FakeServer) -> None:
    with pytest.raises(LabelNotFound, match="label 'stable'"):
        over.retrieve(["42"], label="stable")
    fake.models["music_ivf"].labels["stable"] = 1
    assert over.retrieve(["42"], label="stable")[0].version == 1


def test_a_server_can_be_closed_twice() -> None:
    server = FakeServer()
    server.close()
    server.close()


def test_histories_and_features_are_answered_and_recorded(over: Any, fake: FakeServer) -> None:
    (first,) = over.retrieve(history=[["b", "z"]], features=[{"device": "tv"}])
    assert set(first.candidate_ids) == {"a", "c"}
    assert (first.known_user, first.known_history) == (False, 1)
    assert fake.calls[-1].history == [["b", "z"]]
    assert fake.calls[-1].inputs["features"] == [["device=tv"]]
    (scripted,) = over.retrieve(["42"], history=[["c"]])
    assert list(scripted) == [("b", 0.25)]
    over.retrieve(["42"])
    assert fake.calls[-1].history == []
