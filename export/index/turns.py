"""Time several calls in turns, so that other work on the machine affects all equally."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Times", "Turns", "time_in_turns"]

Name = TypeVar("Name")

_LEAST_TIMED = 3  # calls per block, even if they are slow


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Number and duration of the calls of each contender.

    Attributes:
        count: Timed calls per contender.
        block: Consecutive calls before the next contender's turn.
        untimed: First calls of a block, which bring its data back into the caches.
        block_seconds: Longest block, once some of its calls are timed.
        seconds: Time after which a contender gets no more turns.
        least: Timed calls that a contender makes in any case.
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
        elapsed_ms: Wall-clock time.
        cpu_ms: Time of this process on all cores, which other processes disturb less.
    """

    elapsed_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]


def time_in_turns(calls: Mapping[Name, Callable[[int], object]], turns: Turns) -> dict[Name, Times]:
    """Call each contender for a block, then the next, until all have been called enough.

    Every other round goes backwards, so that no contender always follows the same one.

    Args:
        calls: Contenders by name, called with 0, 1, 2 and so on.
        turns: Number and duration of the calls.

    Returns:
        Times by name.
    """
    contenders = {name: _Contender(call) for name, call in calls.items()}
    waiting = list(contenders.values())
    while waiting:
        for contender in waiting:
            contender.take_turn(turns)
        waiting = [contender for contender in reversed(waiting) if not contender.done(turns)]
    return {
        name: Times(elapsed_ms=tuple(contender.elapsed_ms), cpu_ms=tuple(contender.cpu_ms))
        for name, contender in contenders.items()
    }


class _Contender:
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
