import math
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import ANY

import pytest

from shortlist.clients import CallEvent, Limits, RetryPolicy
from shortlist.clients._calls.call import Caller, Send, Sleep
from shortlist.clients._calls.retry import Attempts, Deadline, RetryBudget
from shortlist.clients._calls.waiting import WaitingCalls
from shortlist.clients._codecs.requests import StatusRequest
from shortlist.clients.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    ServerError,
    ServingError,
    TooManyInFlight,
    Unavailable,
)
from shortlist.clients.testing.model import Refusal
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, ranking

QUICK = RetryPolicy(initial_backoff=0.001, max_backoff=0.01)


@pytest.fixture
def quick(transport: str, server: ToyServer) -> Any:
    with make_client(transport, server.address(transport), retry=QUICK) as client:
        yield client


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_temporary_failures_are_tried_again(quick: Any, server: ToyServer, code: str) -> None:
    server.fail(code, "once")
    server.fail(code, "twice")
    assert list(quick.retrieve(["42"], k=3)[0]) == ranking("42")[:3]
    assert len(server.calls) == 3


@pytest.mark.parametrize("status", ["429", "502", "503", "504"])
def test_temporary_http_failures_are_tried_again(server: ToyServer, status: str) -> None:
    server.fail(status, "once")
    with make_client("rest", server.address("rest"), retry=QUICK) as client:
        client.retrieve(["42"])
    assert len(server.calls) == 2


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "INTERNAL", "UNIMPLEMENTED", "UNKNOWN"])
def test_permanent_failures_are_not_tried_again(quick: Any, server: ToyServer, code: str) -> None:
    server.fail(code, "for good")
    with pytest.raises(ServingError, match="for good"):
        quick.retrieve(["42"])
    assert server.operations().count("predict") == 1


def test_the_last_error_is_raised_when_tries_run_out(quick: Any, server: ToyServer) -> None:
    for number in range(9):
        server.fail("UNAVAILABLE", f"try {number}")
    with pytest.raises(Unavailable, match="try 3"):
        quick.retrieve(["42"])
    assert len(server.calls) == 4


def test_a_server_without_capacity_is_tried_until_the_deadline(
    transport: str, server: ToyServer
) -> None:
    policy = RetryPolicy(max_attempts=2, initial_backoff=0.001, max_backoff=0.01, budget=0)
    with make_client(transport, server.address(transport), retry=policy) as client:
        server.fail("RESOURCE_EXHAUSTED", "full", times=9)
        assert list(client.retrieve(["42"], k=3)[0]) == ranking("42")[:3]
        server.fail("RESOURCE_EXHAUSTED", "full", times=9999)
        started = time.monotonic()
        with pytest.raises(Overloaded, match="full"):
            client.retrieve(["42"], timeout=0.3)
        assert 0.2 < time.monotonic() - started < 2


def test_without_retries_an_overloaded_server_is_told_at_once(
    transport: str, server: ToyServer
) -> None:
    once = RetryPolicy(max_attempts=1)
    with make_client(transport, server.address(transport), retry=once) as client:
        server.fail("RESOURCE_EXHAUSTED", "full")
        with pytest.raises(Overloaded):
            client.retrieve(["42"])
    assert len(server.calls) == 1


@pytest.mark.parametrize(
    "text",
    [
        "the request has 250000 rows; this server takes 10000 (--max_request_rows)",
        "SERVER: Received message larger than max (5 vs. 4)",
    ],
)
def test_a_request_that_is_too_large_is_not_sent_again(
    quick: Any, server: ToyServer, text: str
) -> None:
    server.fail("RESOURCE_EXHAUSTED", text)
    with pytest.raises(InvalidRequest, match="batch_size"):
        quick.retrieve(["42"])
    assert len(server.calls) == 1


class _Small(ToyServer):
    """Runs two requests at a time and refuses others, as TensorFlow Serving does."""

    def __init__(self) -> None:
        super().__init__()
        self._places = threading.Semaphore(2)

    @contextmanager
    def receive(self, *arguments: Any, **options: Any) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Refusal("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
        try:
            with super().receive(*arguments, **options):
                time.sleep(0.002)  # what the model takes
                yield
        finally:
            self._places.release()


def test_many_threads_wait_in_order_for_a_small_server(transport: str) -> None:
    events: list[CallEvent] = []

    def calls(number: int) -> None:
        for _ in range(8):
            assert list(client.retrieve([f"u{number}"], k=3)[0]) == ranking(f"u{number}")[:3]

    with (
        _Small() as server,
        make_client(transport, server.address(transport), hooks=[events.append]) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        client.retrieve(["42"])
        list(pool.map(calls, range(16)))  # raises what a call raised
    tries = sum(event.attempts for event in events) / len(events)
    assert 1 < tries < 3


def test_no_try_comes_after_the_deadline(transport: str, server: ToyServer) -> None:
    server.fail("UNAVAILABLE", "still", times=99)
    slow = RetryPolicy(max_attempts=99, initial_backoff=0.2, max_backoff=0.2, budget=99)
    with make_client(transport, server.address(transport), retry=slow) as client:
        with pytest.raises(Unavailable):
            client.retrieve(["42"], timeout=0.5)
        assert 2 <= len(server.calls) <= 5  # pauses take at least 0.1 s


def test_a_pause_that_ends_too_late_leaves_the_error_before_it(
    server: ToyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine a pause may end after the deadline."""
    server.fail("UNAVAILABLE", "still", times=99)
    with make_client("rest", server.address("rest"), retry=QUICK) as client:
        ends: list[float] = []
        monkeypatch.setattr(Deadline, "remaining", lambda self: -1.0 if ends else 1.0)
        monkeypatch.setattr(time, "sleep", ends.append)
        with pytest.raises(Unavailable, match="still"):
            client.retrieve(["42"], timeout=1.0)
    assert len(server.calls) == len(ends) == 1


def test_a_spent_budget_stops_the_retries(transport: str, server: ToyServer) -> None:
    policy = RetryPolicy(max_attempts=10, initial_backoff=0.001, budget=3, budget_ratio=0.5)
    with make_client(transport, server.address(transport), retry=policy) as client:
        server.fail("UNAVAILABLE", "down", times=5)
        with pytest.raises(Unavailable):  # one try and the three retries of the budget
            client.retrieve(["42"])
        assert len(server.calls) == 4
        with pytest.raises(Unavailable):
            client.retrieve(["42"])
        assert len(server.calls) == 5
        for _ in range(2):  # two successes earn one retry
            client.retrieve(["42"])
        server.fail("UNAVAILABLE", "again")
        client.retrieve(["42"])
        assert len(server.calls) == 9


def test_a_server_that_does_not_answer_is_given_up_at_the_timeout(
    quick: Any, server: ToyServer
) -> None:
    server.hold()  # so that a call without a limit would never end
    with pytest.raises(DeadlineExceeded, match=r"did not end within 0\.[23]"):
        quick.retrieve(["42"], timeout=0.3)


def test_a_limit_for_each_try_leaves_time_for_another(transport: str, server: ToyServer) -> None:
    policy = RetryPolicy(attempt_timeout=0.2, initial_backoff=0.001)
    with make_client(transport, server.address(transport), retry=policy) as client:
        client.retrieve(["42"])
        server.hold()
        with pytest.raises(DeadlineExceeded):
            client.retrieve(["42"], timeout=0.7)
        assert len(server.calls) >= 4


def test_calls_beyond_the_limit_fail_at_once(transport: str, server: ToyServer) -> None:
    with (
        make_client(transport, server.address(transport), limits=Limits(max_in_flight=2)) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        server.hold()
        running = [pool.submit(client.retrieve, ["42"]) for _ in range(2)]
        deadline = time.monotonic() + 5
        while server.active < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(TooManyInFlight, match="2 calls are in flight"):
            client.retrieve(["42"])
        assert not any(call.done() for call in running)
        server.resume()
        assert all(len(call.result()[0]) for call in running)
        client.retrieve(["42"])  # the places are free again


def test_several_addresses_take_turns(transport: str, server: ToyServer) -> None:
    from tests.unit.clients.toys import ToyServer

    with ToyServer() as other:
        addresses = [server.address(transport), other.address(transport)]
        with make_client(transport, addresses) as client:
            for _ in range(10):
                client.retrieve(["42"])
        assert len(server.calls) == len(other.calls) == 5


def test_a_dead_address_is_passed_over(transport: str, server: ToyServer) -> None:
    with make_client(transport, ["127.0.0.1:1", server.address(transport)], retry=QUICK) as client:
        for _ in range(10):
            assert len(client.retrieve(["42"])[0]) == 10


def test_a_restarted_server_is_found_again(transport: str) -> None:
    from tests.unit.clients.toys import ToyServer

    with ToyServer() as first:
        ports = (first.port("grpc"), first.port("rest"))
        client = make_client(transport, first.address(transport), timeout=10)
        client.retrieve(["42"])
    with client, ToyServer(grpc_port=ports[0], rest_port=ports[1]):
        client.wait_until_available(timeout=10, poll_interval=0.05)
        assert len(client.retrieve(["42"])[0]) == 10


def test_a_stream_that_the_server_refused_was_not_begun(server: ToyServer) -> None:
    """nginx, Envoy and our server take so many streams of one connection."""
    text = "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))"
    once = RetryPolicy(max_attempts=1)
    server.fail("UNAVAILABLE", text)
    with (
        make_client("grpc", server.address("grpc"), retry=once) as client,
        pytest.raises(Overloaded, match="send fewer requests at a time") as caught,
    ):
        client.retrieve(["42"])
    assert caught.value.received == f"UNAVAILABLE: {text}"  # verbatim


# --- the pure parts -----------------------------------------------------------------


def test_pauses_grow_within_their_bounds() -> None:
    random.seed(7)
    policy = RetryPolicy(max_attempts=9, initial_backoff=0.1, multiplier=2, max_backoff=0.5)
    attempts = Attempts(policy, RetryBudget(policy), Deadline(60))
    for bound in (0.1, 0.2, 0.4, 0.5, 0.5):
        attempts.next_timeout(1.0)
        pause = attempts.pause(Unavailable("x"), repeatable=True)
        assert pause is not None
        assert bound / 2 <= pause <= bound


@pytest.mark.parametrize(
    ("error", "again"),
    [(Unavailable("x"), True), (InvalidRequest("x"), False), (ServerError("x"), False)],
)
def test_only_temporary_errors_are_tried_again(error: ServingError, again: bool) -> None:
    policy = RetryPolicy()
    attempts = Attempts(policy, RetryBudget(policy), Deadline(60))
    attempts.next_timeout(1.0)
    assert (attempts.pause(error, repeatable=True) is not None) is again
    assert attempts.pause(error, repeatable=False) is None


def test_waiting_calls_are_woken_in_order() -> None:
    waiting = WaitingCalls()
    woken: list[str] = []
    wakes = {name: partial(woken.append, name) for name in "abc"}
    waiting.join(wakes["b"], again=False)
    waiting.join(wakes["c"], again=False)
    waiting.join(wakes["a"], again=True)  # it has waited already
    waiting.leave(wakes["c"])
    assert waiting.wakes
    for _ in range(3):
        waiting.wake_one()
    assert woken == ["a", "b"]
    assert not waiting.wakes
    waiting.leave(wakes["a"])


@pytest.mark.parametrize("others_wait", [True, False])
def test_a_call_keeps_its_place_once_it_has_waited(others_wait: bool) -> None:
    caller = Caller(["a:1"], "grpc", model="m", timeout=60, retry=QUICK, hooks=(), limits=None)
    flow = caller.call(None, None, None, None).send(StatusRequest(target=caller.target))
    if others_wait:
        caller.waiting.join(lambda: None, again=False)
        turn = next(flow)
        assert isinstance(turn, Sleep)
        assert (turn.waiting, turn.again) == (caller.waiting, False)
    else:
        assert isinstance(next(flow), Send)
        assert flow.throw(Unavailable("down")) == Sleep(ANY, None)  # a pause is no wait
    for again in (others_wait, True):
        assert isinstance(flow.send(None), Send)
        assert flow.throw(Overloaded("full")) == Sleep(ANY, caller.waiting, again)


def test_endless_refusals_overflow_nothing() -> None:
    policy = RetryPolicy(multiplier=1e300)
    attempts = Attempts(policy, RetryBudget(policy), Deadline(math.inf))
    for _ in range(2000):
        attempts.next_timeout(1.0)
        pause = attempts.pause(Overloaded("x"), repeatable=True)
        assert pause is not None
        assert pause <= policy.max_backoff


def test_no_timeout_at_all_is_none() -> None:
    policy = RetryPolicy()
    assert Attempts(policy, RetryBudget(policy), Deadline(math.inf)).next_timeout(math.inf) is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number of at least 1, got 0"),
        ({"initial_backoff": -1}, "initial_backoff"),
        ({"multiplier": 0.5}, "multiplier"),
        ({"attempt_timeout": 0}, "attempt_timeout"),
        ({"budget": float("nan")}, "budget"),
    ],
)
def test_a_wrong_policy_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        RetryPolicy(**options)
