"""On a bad network, calls end in time, with the right answer or a clear error."""

import time
from typing import Any

import pytest

from shortlist.clients import RetryPolicy
from shortlist.clients.errors import DeadlineExceeded, ServingError
from tests.unit.clients.chaos import Chaos, proxy
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, ranking

TIMEOUT = 0.3
MARGIN = 0.25  # seconds that a call may outlive its deadline on a busy machine
QUICK = RetryPolicy(initial_backoff=0.002, max_backoff=0.02, budget=1000, budget_ratio=1)


def storm(transport: str, port: int, calls: int, timeout: float = TIMEOUT) -> dict[str, int]:
    """Make calls, check each, and return the number of each outcome."""
    ends: dict[str, int] = {}
    with make_client(transport, f"127.0.0.1:{port}", retry=QUICK, timeout=timeout) as client:
        for number in range(calls):
            user = f"user-{number}"
            started = time.monotonic()
            try:
                (retrieval,) = client.retrieve([user], k=3)
                assert list(retrieval) == ranking(user)[:3]
                end = "right"
            except ServingError as error:
                end = type(error).__name__
            assert time.monotonic() - started < timeout + MARGIN, end
            ends[end] = ends.get(end, 0) + 1
    return ends


KINDS: dict[str, dict[str, Any]] = {
    "resets": {"reset": 0.2},
    "truncation": {"truncate": 0.2},
    "delays": {"delay": 0.3},
    "black holes": {"hole": 0.05},
    "drips": {"drip": 0.05},
    "everything": {"reset": 0.05, "truncate": 0.05, "delay": 0.05, "hole": 0.02, "drip": 0.02},
}


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind == "everything" else pytest.param(kind, marks=pytest.mark.slow)
        for kind in sorted(KINDS)
    ],
)
def test_calls_end_in_time_and_right_or_with_an_error_of_the_tree(
    transport: str, server: ToyServer, kind: str
) -> None:
    chaos = Chaos(seed=5, **KINDS[kind])
    with proxy(server.port(transport), chaos) as port:
        ends = storm(transport, port, 40)
    assert chaos.happened, "the dice never fell"
    assert ends.get("right", 0) >= 15, ends


@pytest.mark.slow
def test_busy_answers_of_a_proxy_are_tried_again(server: ToyServer) -> None:
    with proxy(server.port("rest"), Chaos(seed=1, busy=0.2)) as port:
        ends = storm("rest", port, 60, timeout=2)
    assert ends["right"] >= 50, ends  # a 503 inside an answer in two pieces breaks it


def test_an_answer_that_drips_ends_at_the_deadline(transport: str, server: ToyServer) -> None:
    """Bytes keep coming, so only a deadline for the whole answer ends the call."""
    with (
        proxy(server.port(transport), Chaos(drip=1.0)) as port,
        make_client(transport, f"127.0.0.1:{port}", timeout=0.5) as client,
    ):
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.retrieve(["42"])
        assert time.monotonic() - started < 0.5 + MARGIN


@pytest.mark.slow
def test_a_longer_storm(transport: str, server: ToyServer) -> None:
    chaos = Chaos(seed=9, reset=0.02, truncate=0.02, delay=0.02, hole=0.005, drip=0.005)
    with proxy(server.port(transport), chaos) as port:
        ends = storm(transport, port, 300)
    assert ends["right"] >= 260, ends
