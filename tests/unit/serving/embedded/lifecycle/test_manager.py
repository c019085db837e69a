"""The manager's steps, one by one, with a loader that never waits."""

import threading

import pytest

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.lifecycle.loading import LoadRetries
from shortlist.serving.embedded.lifecycle.manager import Manager
from shortlist.serving.embedded.lifecycle.states import StateBoard
from tests.unit.serving.embedded.fakes import FakeLoader, FakeServable, Later


class World:
    def __init__(self, *, load_threads: int = 0, max_retries: int = 0) -> None:
        self.loader = FakeLoader()
        self.board = StateBoard()
        self.later = Later()
        self.manager = Manager(
            self.loader,
            self.board,
            retries=LoadRetries(max_retries=max_retries, interval=0.0),
            load_threads=load_threads,
            spawn=self.later,
        )

    def aspire(self, name: str, *versions: int) -> None:
        self.manager.aspire(name, {version: f"/{name}/{version}" for version in versions})

    def settle(self) -> None:
        """Take steps and run their work until there is none left."""
        while self.manager.step() or self.later.work:
            self.later.run_all()

    def states(self, name: str = "m") -> dict[int, State]:
        return {status.version: status.state for status in self.board.statuses(name)}

    def served(self, name: str = "m", version: int | None = None) -> int:
        with self.manager.serving.acquire(name, version) as servable:
            return servable.version


@pytest.fixture
def world() -> World:
    return World()


def test_aspired_version_becomes_available(world: World) -> None:
    world.aspire("m", 1)
    world.manager.step()
    assert world.states() == {1: State.START}
    world.settle()
    assert world.states() == {1: State.AVAILABLE}
    assert world.served() == 1


def test_new_version_serves_before_the_old_one_unloads(world: World) -> None:
    world.aspire("m", 1)
    world.settle()
    world.aspire("m", 2)
    world.manager.step()
    assert world.states() == {1: State.AVAILABLE, 2: State.START}
    assert world.later.names == ["load m 2"]
    world.later.run_all()
    assert world.states() == {1: State.AVAILABLE, 2: State.AVAILABLE}
    assert world.served() == 2
    world.settle()
    assert world.states() == {1: State.END, 2: State.AVAILABLE}
    assert world.loader.servables["m", 1].closed


def test_unload_waits_for_the_request_in_flight(world: World) -> None:
    world.aspire("m", 1)
    world.settle()
    lease = world.manager.serving.acquire("m", 1)
    old = lease.__enter__()
    world.aspire("m", 2)
    world.manager.step()
    world.later.run_all()
    world.manager.step()
    unloading = threading.Thread(target=world.later.run_all)
    unloading.start()
    unloading.join(0.2)
    assert unloading.is_alive()
    assert world.states()[1] is State.UNLOADING
    with pytest.raises(StatusError, match=r"Specific\(m, 1\)"):
        world.served(version=1)
    assert isinstance(old, FakeServable)
    assert not old.closed
    lease.__exit__(None, None, None)
    unloading.join(5)
    assert world.states() == {1: State.END, 2: State.AVAILABLE}
    assert old.closed


def test_failed_load_ends_with_its_error_and_leaves_the_old_version(world: World) -> None:
    world.loader.break_version("m", 2, Code.OUT_OF_RANGE, "Read less bytes than requested")
    world.aspire("m", 1)
    world.settle()
    world.aspire("m", 2)
    world.settle()
    newest, oldest = world.board.statuses("m")
    assert (newest.state, newest.error_code) == (State.END, Code.OUT_OF_RANGE)
    assert newest.error_message == "Read less bytes than requested"
    assert oldest.state is State.AVAILABLE
    assert world.served() == 1


def test_failed_version_is_not_retried_after_its_folder_was_repaired(world: World) -> None:
    """The old version, aspired again, still serves, so the update waits until it ends."""
    world.loader.break_version("m", 3, Code.NOT_FOUND, "broken")
    world.aspire("m", 1)
    world.settle()
    world.aspire("m", 3)
    world.settle()
    world.aspire("m", 1)  # the folder of 3 was removed
    world.settle()
    world.loader.broken.clear()
    world.aspire("m", 3)  # and is there again, whole
    world.settle()
    assert world.states() == {3: State.END, 1: State.AVAILABLE}
    assert world.loader.loads.count(("m", 3)) == 1


def test_failed_version_is_loaded_again_after_a_poll_without_it(world: World) -> None:
    world.loader.break_version("m", 3, Code.NOT_FOUND, "broken")
    world.aspire("m", 3)
    world.settle()
    world.aspire("m")
    world.settle()
    world.loader.broken.clear()
    world.aspire("m", 3)
    world.settle()
    assert world.states() == {3: State.AVAILABLE}


def test_dropped_model_loses_all_versions(world: World) -> None:
    world.aspire("m", 1, 2)
    world.settle()
    world.aspire("m")
    world.settle()
    assert world.states() == {1: State.END, 2: State.END}
    with pytest.raises(StatusError, match=r"Servable not found for request: Latest\(m\)"):
        world.served()


def test_unloaded_version_can_come_back(world: World) -> None:
    world.aspire("m", 1, 2)
    world.settle()
    world.aspire("m", 2)
    world.settle()
    world.aspire("m", 1, 2)
    world.settle()
    assert world.states() == {1: State.AVAILABLE, 2: State.AVAILABLE}
    assert world.loader.loads.count(("m", 1)) == 2


def test_loads_at_a_time_are_limited() -> None:
    world = World(load_threads=2)
    world.aspire("a", 1)
    world.aspire("b", 1)
    world.aspire("c", 1)
    world.manager.step()
    assert len(world.later.work) == 2
    world.settle()
    assert [world.served(name) for name in "abc"] == [1, 1, 1]


def test_load_is_retried_and_the_last_failure_reported() -> None:
    world = World(max_retries=2)
    world.loader.break_version("m", 1, Code.UNAVAILABLE, "not yet")
    world.aspire("m", 1)
    world.settle()
    assert world.loader.loads == [("m", 1)] * 3
    assert world.board.statuses("m")[0].error_message == "not yet"


def test_version_that_keeps_failing_does_not_delay_others() -> None:
    """The real server's only load thread sleeps between attempts, which delays all loads."""
    loader = FakeLoader()
    loader.break_version("bad", 1, Code.UNAVAILABLE, "not yet")
    board = StateBoard()
    manager = Manager(
        loader, board, retries=LoadRetries(max_retries=5, interval=60.0), load_threads=1
    )
    manager.start()
    try:
        manager.aspire("bad", {1: "/bad/1"})
        manager.aspire("good", {1: "/good/1"})
        assert board.wait_settled(["good"]) is not None
        manager.aspire("bad", {})  # ends the wait for the next attempt
        settled = board.wait_settled(["bad"])
        assert settled is not None
        assert settled["bad"].error_code is Code.UNAVAILABLE
    finally:
        manager.stop()


def test_unexpected_exception_of_the_loader_is_an_internal_error(world: World) -> None:
    def load(name: str, version: int, path: str) -> FakeServable:
        raise MemoryError("no room")

    manager = Manager(
        load, world.board, retries=LoadRetries(max_retries=0), spawn=lambda _, work: work()
    )
    manager.aspire("m", {1: "/m/1"})
    while manager.step():
        pass
    status = world.board.statuses("m")[0]
    assert (status.error_code, status.error_message) == (Code.INTERNAL, "MemoryError: no room")


def test_version_dropped_while_loading_never_serves(world: World) -> None:
    world.aspire("m", 1)
    world.manager.step()
    world.aspire("m")
    world.manager.step()
    world.settle()
    status = world.board.statuses("m")[0]
    assert (status.state, status.error_code) == (State.END, Code.CANCELLED)
    assert world.loader.servables["m", 1].closed


def test_stop_closes_loaded_versions(world: World) -> None:
    world.aspire("m", 1)
    world.settle()
    world.manager.stop()
    assert world.loader.servables["m", 1].closed
    with pytest.raises(StatusError):
        world.served()
