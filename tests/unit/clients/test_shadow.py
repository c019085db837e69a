"""Shadow traffic: copies of requests to another label, whose answers are only logged."""

import threading
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import CallEvent, Split
from shortlist.clients._engines.background import MAX_SPAWNED, Background
from shortlist.clients.request_log import RequestLog, read_log
from tests.support.waiting import wait_until
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer

USERS = [f"user-{i}" for i in range(400)]
SHADOWED = Split({"stable": 1.0}, shadow={"canary": 0.25})


class Answers:
    """A hook that keeps the answers of copies."""

    def __init__(self) -> None:
        self.events: list[CallEvent] = []
        self.copies: list[tuple[CallEvent, list[str]]] = []

    def __call__(self, event: CallEvent) -> None:
        self.events.append(event)

    def exchange(self, event: CallEvent, request: Any, reply: Any) -> None:
        if event.shadow:
            self.copies.append((event, request.inputs["user_id"].value))


def test_shares_of_a_shadow_are_users_shares() -> None:
    chosen = [user for user in USERS if SHADOWED.is_shadowed(user, "canary")]
    assert len(chosen) == pytest.approx(100, abs=30)
    more = Split({"stable": 1.0}, shadow={"canary": 0.5})
    assert {*chosen} <= {user for user in USERS if more.is_shadowed(user, "canary")}
    split = Split({"stable": 0.5, "canary": 0.5}, shadow={"canary": 1.0})
    for user in USERS:  # a user of the label itself needs no copy
        assert split.is_shadowed(user, "canary") == (split.label_for(user) == "stable")
    assert not SHADOWED.is_shadowed("user-1", "other")


@pytest.mark.parametrize(
    ("shadow", "message"),
    [({"canary": 1.5}, r"must be in \[0, 1\], got 1.5"), ({"": 0.5}, "non-empty"), (3, "shadow")],
)
def test_wrong_shadows_are_refused(shadow: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split({"stable": 1.0}, shadow=shadow)


def test_copies_reach_the_label_and_their_answers_the_hooks_of_answers(
    transport: str, server: ToyServer
) -> None:
    hook = Answers()
    events: list[CallEvent] = []
    with make_client(transport, server.address(transport), hooks=[events.append, hook]) as client:
        answers = client.retrieve(USERS[:100], k=3, label=SHADOWED)
        wait_until(lambda: bool(hook.copies))
    assert [answer.user_id for answer in answers] == USERS[:100]
    assert {(answer.label, answer.version) for answer in answers} == {("stable", 1)}
    ((event, users),) = hook.copies
    assert users == [user for user in USERS[:100] if SHADOWED.is_shadowed(user, "canary")]
    assert (event.label, event.version, event.operation) == ("canary", 2, "retrieve")
    assert [event.label for event in events] == ["stable"]  # they count what users got
    assert hook.events == events


def test_copies_are_logged_as_such(transport: str, server: ToyServer, tmp_path: Path) -> None:
    split = Split({"stable": 1.0}, shadow={"canary": 1.0})
    log = RequestLog(tmp_path / "x")
    with make_client(transport, server.address(transport), hooks=[log]) as client:
        client.retrieve(["42"], k=3, history=[["c01"]], label=split)
        wait_until(lambda: log.counts.written == 2)
    log.close()
    user, copy = read_log(tmp_path)
    assert (user.shadow, user.label, user.version) == (False, "stable", 1)
    assert (copy.shadow, copy.label, copy.version) == (True, "canary", 2)
    assert user.inputs == copy.inputs


def test_without_a_hook_of_answers_nothing_is_copied(transport: str, server: ToyServer) -> None:
    events: list[CallEvent] = []
    with make_client(transport, server.address(transport), hooks=[events.append]) as client:
        client.retrieve(USERS[:50], label=SHADOWED)
    assert len(server.calls) == 1


def test_a_label_that_fails_fails_no_call(transport: str, server: ToyServer) -> None:
    hook = Answers()
    split = Split({"stable": 1.0}, shadow={"nightly": 1.0})
    with make_client(transport, server.address(transport), hooks=[hook]) as client:
        for _ in range(3):
            assert len(client.retrieve(["42"], label=split)) == 1
        wait_until(lambda: len(server.calls) >= 6)
    assert hook.copies == []
    assert {event.status for event in hook.events} == {"OK"}


def test_a_slow_label_delays_neither_calls_nor_the_end(transport: str, server: ToyServer) -> None:
    """Copies wait, two at a time, and those beyond the limit are dropped."""
    answered = threading.Event()
    model = server.models["retrieval_brute_force"]
    signature = model.signatures["serving_default"]
    run = signature.run

    def slow_canary(inputs: Any, version: int) -> Any:
        if version == 2:
            answered.wait(20)
        return run(inputs, version)

    object.__setattr__(signature, "run", slow_canary)
    split = Split({"stable": 1.0}, shadow={"canary": 1.0})
    hook = Answers()
    try:
        with make_client(transport, server.address(transport), hooks=[hook], timeout=5) as client:
            for _ in range(5):
                client.retrieve(["42"], label=split)
            assert max(event.seconds for event in hook.events) < 2
    finally:
        answered.set()
    assert len(hook.events) == 5


def test_beyond_the_limit_copies_are_dropped() -> None:
    hold, ran = threading.Event(), []

    def flow(number: int) -> Any:
        ran.append(number)
        yield

    def run(started: Any) -> None:
        hold.wait(20)
        next(started)

    background = Background()
    for number in range(MAX_SPAWNED + 10):
        background.start(run, flow(number))
    hold.set()
    wait_until(lambda: len(ran) == MAX_SPAWNED)
    assert sorted(ran) == list(range(MAX_SPAWNED))
    background.close()
    background.start(run, flow(-1))
    assert len(ran) == MAX_SPAWNED


def test_a_copy_that_waited_too_long_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program ends only when all copies have: 30 waiting ones would take a minute."""
    monkeypatch.setattr("shortlist.clients._engines.background._MAX_WAIT", -1.0)
    ran: list[Any] = []
    background = Background()

    def flow() -> Any:
        yield

    flows = [flow() for _ in range(MAX_SPAWNED + 1)]
    for started in flows:
        background.start(ran.append, started)
        wait_until(lambda: background._spawned == 0)
    background.close()
    assert ran == []


def test_a_program_that_ends_starts_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", refused)
    background = Background()
    background.start(lambda flow: None, iter(()))  # type: ignore[arg-type]
    assert background._spawned == 0
