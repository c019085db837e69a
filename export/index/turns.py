"""Times several things in turns, so that other work on the machine meets all of them alike."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Times", "Turns", "time_in_turns"]

Name = TypeVar("Name")

_LEAST_TIMED = 3  # calls of a block, however slow they are


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How often and for how long each is called.

    Attributes:
        count: Timed calls of each.
        block: Calls in a row before it is the next one's turn.
        untimed: The first so many of a block, which bring its data back into the caches.
        block_seconds: A block ends after so long, too, once some of it are timed.
        seconds: After so many of its own, one gets no more turns.
        least: Timed calls that it makes in any case.
    """

    count: int
    block: int
    untimed: int
    block_seconds: float = 1.0
    seconds: float = math.inf
    least: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.untimed < self.block:
            raise ValueError(
                f"untimed must lie between 0 and block, got {self.untimed} of {self.block}"
            )


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds of each timed call, in order.

    Attributes:
        elapsed_ms: By the clock.
        cpu_ms: Of this process on all cores, which bears other work beside it.
    """

    elapsed_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]


def time_in_turns(calls: Mapping[Name, Callable[[int], object]], turns: Turns) -> dict[Name, Times]:
    """Calls each for a block, then the next, again and again until all have been called enough.

    Every other round goes backwards, so that none always follows the same one.

    Args:
        calls: What to time, by any name. Each is given 0, 1, 2 and so on.
        turns: How often.

    Returns:
        The times by name.
    """
    contenders = {name: _Contender(call) for name, call in calls.items()}
    waiting = list(contenders.values())
    while waiting:
        for contender in waiting:
            contender.take_turn(turns)
        waiting = [contender for contender in reversed(waiting) if not contender.done(turns)]
    return {
        name: Times(elapsed_ms=tuple(one.elapsed_ms), cpu_ms=tuple(one.cpu_ms))
        for name, one in contenders.items()
    }


class _Contender:
    """One that is timed."""

    def __init__(self, call: Callable[[int], object]) -> None:
        self._call = call
        self._calls = 0
        self._seconds = 0.0
        self.elapsed_ms: list[float] = []
        self.cpu_ms: list[float] = []

    def take_turn(self, turns: Turns) -> None:
        spent = 0.0
        for i in range(turns.block):
            start, cpu_start = time.perf_counter(), time.process_time()
            self._call(self._calls)
            cpu, elapsed = time.process_time() - cpu_start, time.perf_counter() - start
            self._calls += 1
            spent += elapsed
            if i >= turns.untimed:
                self.elapsed_ms.append(elapsed * 1e3)
                self.cpu_ms.append(cpu * 1e3)
            timed = i + 1 - turns.untimed
            if len(self.elapsed_ms) >= turns.count or (
                spent >= turns.block_seconds and timed >= _LEAST_TIMED
            ):
                break
        self._seconds += spent

    def done(self, turns: Turns) -> bool:
        timed = len(self.elapsed_ms)
        return timed >= turns.count or (self._seconds >= turns.seconds and timed >= turns.least)
