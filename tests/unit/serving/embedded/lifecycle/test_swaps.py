"""Concurrent requests and swaps, with real threads."""

import threading
import time

from shortlist.clients.types import State
from shortlist.serving.embedded.lifecycle.loading import LoadRetries
from shortlist.serving.embedded.lifecycle.manager import Manager
from shortlist.serving.embedded.lifecycle.states import StateBoard
from tests.support.waiting import wait_until
from tests.unit.serving.embedded.fakes import FakeLoader, FakeServable


def test_no_request_fails_or_runs_a_closed_servable_during_swaps() -> None:
    board = StateBoard()
    manager = Manager(FakeLoader(), board, retries=LoadRetries(max_retries=0))
    manager.start()
    manager.aspire("m", {1: "/m/1"})
    assert board.wait_settled(["m"]) is not None
    done = threading.Event()
    problems: list[str] = []
    served: set[int] = set()

    def ask() -> None:
        while not done.is_set():
            try:
                with manager.serving.acquire("m", None) as servable:
                    assert isinstance(servable, FakeServable)
                    version = servable.version
                    time.sleep(0.0005)
                    if servable.closed:
                        problems.append(f"version {version} was closed in use")
                    served.add(version)
            except Exception as exc:
                problems.append(repr(exc))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    last = 30
    for version in range(2, last + 1):
        manager.aspire("m", {version: f"/m/{version}"})
        wait_until(lambda version=version: board.available("m") == {version})  # type: ignore[misc]
    done.set()
    for thread in threads:
        thread.join(10)
    manager.stop()
    assert not problems, problems[:5]
    assert len(served) > 5
    states = {status.version: status.state for status in board.statuses("m")}
    assert states == dict.fromkeys(range(1, last), State.END) | {last: State.AVAILABLE}
