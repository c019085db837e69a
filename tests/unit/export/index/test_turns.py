"""Contenders that are timed in turns have the same noise and end in time."""

import time
from collections.abc import Callable

import pytest

from shortlist.export.index.turns import Turns, time_in_turns


def recorder(name: str, calls: list[tuple[str, int]]) -> Callable[[int], object]:
    return lambda i: calls.append((name, i))


def test_blocks_alternate_and_every_other_round_goes_backwards() -> None:
    calls: list[tuple[str, int]] = []
    contenders = {name: recorder(name, calls) for name in "ab"}
    times = time_in_turns(contenders, Turns(count=4, block=3, untimed=1))
    blocks = [name for name, _ in calls[::3]]
    assert blocks == ["a", "b", "b", "a"]
    assert [i for name, i in calls if name == "a"] == [0, 1, 2, 3, 4, 5]
    assert [i for name, i in calls if name == "b"] == [0, 1, 2, 3, 4, 5]
    assert {name: len(timed.elapsed_ms) for name, timed in times.items()} == {"a": 4, "b": 4}
    assert all(len(timed.cpu_ms) == 4 for timed in times.values())


def test_last_block_ends_with_the_last_call_that_counts() -> None:
    calls: list[tuple[str, int]] = []
    times = time_in_turns({"a": recorder("a", calls)}, Turns(count=3, block=3, untimed=1))
    assert len(times["a"].elapsed_ms) == 3
    assert len(calls) == 5


def test_slow_contender_stops_early_and_others_go_on() -> None:
    calls: list[tuple[str, int]] = []
    contenders = {"slow": lambda i: time.sleep(0.02), "fast": recorder("fast", calls)}
    turns = Turns(count=500, block=4, untimed=1, block_seconds=0.01, seconds=0.1, least=5)
    times = time_in_turns(contenders, turns)
    assert 5 <= len(times["slow"].elapsed_ms) < 20
    assert min(times["slow"].elapsed_ms) >= 20
    assert len(times["fast"].elapsed_ms) == 500


def test_block_without_a_timed_call_is_refused() -> None:
    with pytest.raises(ValueError, match="untimed must lie between 0 and block, got 3 of 3"):
        Turns(count=1, block=3, untimed=3)
