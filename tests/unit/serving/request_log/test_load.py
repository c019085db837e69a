"""Load at the recorded moments."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shortlist.clients.errors import ServableNotFound, Unavailable
from shortlist.clients.request_log.records import LogRecord, decode
from shortlist.clients.testing import FakeServer
from shortlist.serving.request_log.load import Pace, Planned, plan, recorded_requests, send
from shortlist.serving.request_log.selection import SelectedLog
from tests.unit.serving.request_log.examples import record, write_log


def records(*moments: float, model: str = "retrieval_brute_force") -> list[LogRecord]:
    return [decode(record({"user_id": ["1"]}, at=moment, model=model)) for moment in moments]


@pytest.mark.parametrize(
    ("pace", "duration", "due"),
    [
        ("recorded", None, [0.0, 1.0, 4.0]),
        ("2x", None, [0.0, 0.5, 2.0]),
        ("0.5x", None, [0.0, 2.0, 8.0]),
        ("10", None, [0.0, 0.1, 0.2]),
        ("recorded", 8.0, [0.0, 1.0, 4.0, 6.0, 7.0]),
        ("2", 2.0, [0.0, 0.5, 1.0, 1.5]),
        ("recorded", 2.0, [0.0, 1.0]),
    ],
)
def test_requests_are_due(pace: str, duration: float | None, due: list[float]) -> None:
    planned = plan(records(0, 1, 4), Pace.of(pace), duration=duration)
    assert [request.due for request in planned] == pytest.approx(due)


@pytest.mark.parametrize("text", ["fast", "0", "-1x", "x", "inf", "nan"])
def test_other_paces_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--rate takes `recorded`, a factor such as 2x"):
        Pace.of(text)


def test_requests_come_in_order_of_time(tmp_path: Path) -> None:
    """A slow request is logged after a quick one that began later."""
    write_log(tmp_path, [record({"user_id": ["1"]}, at=moment) for moment in (5, 3, 4, 9)])
    found = recorded_requests(SelectedLog(tmp_path), 3)
    assert [one.time - found[0].time for one in found] == pytest.approx([0, 1, 2])


def test_requests_are_sent_although_earlier_ones_are_not_answered() -> None:
    """The server answers nothing until the last request is due."""
    with FakeServer() as server:

        def stalling() -> Iterator[Planned]:
            for number, request in enumerate(plan(records(*[0.0] * 20), Pace.of("500"))):
                if number == 1:
                    server.hold()
                if number == 19:
                    server.resume()
                yield request

        result = asyncio.run(send(stalling(), [server.grpc_address], timeout=10))
    assert (result.sent, result.errors.total(), result.response.count) == (20, 0, 20)


def test_who_waits_for_a_slow_request_is_charged_for_the_wait() -> None:
    """With one connection, one slow request delays all that come meanwhile."""
    with FakeServer() as server:

        def stalling() -> Iterator[Planned]:
            for number, request in enumerate(plan(records(*[0.0] * 40), Pace.of("200"))):
                if number == 5:
                    server.hold()
                if number == 39:
                    server.resume()
                yield request

        result = asyncio.run(send(stalling(), [server.grpc_address], timeout=10, in_flight=1))
    assert result.errors.total() == 0
    due, sent = result.response.quantile(0.5), result.service.quantile(0.5)
    assert due is not None
    assert sent is not None
    assert due > 0.05  # half of them waited longer than that of 0.17 s
    assert sent < 0.05  # but only one was answered slowly


def test_failures_are_counted_by_message() -> None:
    with FakeServer() as server:
        wrong = decode(record({"nonsense": ["1"]}, model="retrieval_brute_force"))
        planned = plan([wrong, *records(0.1)], Pace.of("50"))
        result = asyncio.run(send(planned, [server.grpc_address], timeout=10))
    assert (result.sent, result.errors.total()) == (2, 1)
    assert result.as_json()["failed"] == 1


def test_without_the_server_or_the_model_nothing_is_measured() -> None:
    planned = plan(records(0), Pace.of("1"))
    gone = plan(records(0, model="gone"), Pace.of("1"))
    with pytest.raises(Unavailable):
        asyncio.run(send(planned, ["127.0.0.1:1"], timeout=2))
    with FakeServer() as server, pytest.raises(ServableNotFound):
        asyncio.run(send(gone, [server.grpc_address], timeout=2))
