"""Verdicts on synthetic pairs: how often they are wrong, and how soon they are right."""

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shortlist.clients.hooks import CallEvent
from shortlist.clients.hooks.event_log import EventLog
from shortlist.serving.errors import RepositoryError
from shortlist.serving.rollout.judge.measures import Bet, Limits, Pair, Side
from shortlist.serving.rollout.judge.traffic import read_users, recorded_pairs
from shortlist.serving.rollout.judge.verdict import Judgement, judge

IDS = tuple("abcdefghij")


def side(
    chance: random.Random,
    *,
    errors: float = 0.0,
    factor: float = 1.0,
    empty: float = 0.0,
    ids: tuple[str, ...] = IDS,
) -> Side:
    if chance.random() < errors:
        return Side(error="FAILED_PRECONDITION: variable", seconds=0.001)
    return Side(
        error=None,
        seconds=0.01 * chance.lognormvariate(0, 0.3) * factor,
        candidate_ids=() if chance.random() < empty else ids,
    )


def pairs(chance: random.Random, **canary: float | tuple[str, ...]) -> Iterator[Pair]:
    while True:
        yield Pair(stable=side(chance), canary=side(chance, **canary))  # type: ignore[arg-type]


class Clock:
    """A second has 20 pairs."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.calls / 20


def judged(seed: int, *, duration: float = 120, **canary: float | tuple[str, ...]) -> Judgement:
    return judge(
        pairs(random.Random(seed), **canary),
        limits=Limits(),
        duration=duration,
        answers=True,
        clock=Clock(),
    )


def test_an_equal_canary_is_promoted_when_time_is_up() -> None:
    found = judged(1)
    assert found.promote
    assert found.pairs > 2000
    assert "The canary is within all limits" in found.why
    assert found.why.endswith("Promoted.")
    assert json.loads(json.dumps(found.as_json()))["verdict"] == "promote"


@pytest.mark.parametrize(
    ("canary", "reason", "most_pairs"),
    [
        ({"errors": 0.2}, "errors", 200),
        ({"errors": 1.0}, "errors", 20),
        ({"factor": 3.0}, "slow requests", 100),
        ({"empty": 0.3}, "empty answers", 150),
        ({"ids": tuple("0123456789")}, "answers unlike stable's", 200),
    ],
)
def test_a_bad_canary_is_rolled_back_long_before_time_is_up(
    canary: dict[str, float], reason: str, most_pairs: int
) -> None:
    found = judged(2, **canary)
    assert not found.promote
    assert found.pairs < most_pairs
    assert f"worse than allowed, with an error probability of at most 0.01: {reason}" in found.why
    assert "Rolled back." in found.why


def test_too_little_traffic_promotes_nothing() -> None:
    found = judged(3, duration=2)
    assert not found.promote
    assert "not enough to be sure" in found.why
    assert "give it more time or more requests" in found.why


def test_verdicts_are_wrong_no_more_often_than_stated() -> None:
    """An equal canary with a base rate of errors is looked at 1000 times, in each of 200 runs."""
    wrong = 0
    for seed in range(200):
        chance = random.Random(seed)
        bet = Bet(value=0.01, low=-1, high=1, above=True)
        for _ in range(1000):
            # Canary's errors exceed stable's by just the limit.
            x = float(chance.random() < 0.06) - float(chance.random() < 0.05)
            bet.observe(x)
            if bet.decided(0.05):
                wrong += 1
                break
    # A fixed 5 % test that is looked at so often goes wrong in a third of the runs.
    assert wrong <= 0.05 * 200 + 2 * (200 * 0.05 * 0.95) ** 0.5


def test_values_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="value must be between 0 and 1, got 1"):
        Bet(value=1, low=0, high=1, above=True)
    with pytest.raises(ValueError, match=r"must be between 0 and 1, got 1\.5"):
        Bet(value=0.5, low=0, high=1, above=True).observe(1.5)
    with pytest.raises(ValueError, match="alpha must be between 0 and 1, got 0"):
        Limits(alpha=0)


def event(label: str, status: str, seconds: float, model: str = "m") -> CallEvent:
    return CallEvent(
        operation="retrieve",
        transport="grpc",
        address="a:8500",
        model=model,
        version=None,
        label=label,
        status=status,
        started=0.0,
        seconds=seconds,
        attempts=1,
    )


def test_real_traffic_is_paired_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log(event("canary", "ServerError", 9.0))  # before the judge began
    found = recorded_pairs(path, "m", poll_interval=0.01)
    assert next(found) is None
    for one in (
        event("stable", "OK", 0.1),
        event("stable", "OK", 0.2),
        event("canary", "OK", 0.3, model="another"),
        event("canary", "Overloaded", 0.4),
    ):
        log(one)
    log.close()
    pair = next(one for one in found if one is not None)
    assert (pair.stable.seconds, pair.stable.error) == (0.1, None)
    assert (pair.canary.seconds, pair.canary.error) == (0.4, "Overloaded")
    assert next(found) is None


def test_a_bad_canary_in_real_traffic_is_found(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)

    def traffic() -> None:
        deadline = time.monotonic() + 20
        while not done.is_set() and time.monotonic() < deadline:
            for _ in range(19):
                log(event("stable", "OK", 0.01))
            log(event("canary", "ServerError", 0.01))
            done.wait(0.001)

    done = threading.Event()
    thread = threading.Thread(target=traffic)
    thread.start()
    found = judge(
        recorded_pairs(path, "m", poll_interval=0.01),
        limits=Limits(),
        duration=15,
        answers=False,
    )
    done.set()
    thread.join()
    log.close()
    assert not found.promote
    assert found.errors == ("ServerError",)


def test_users_are_read_one_per_line(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("1\n\n 2 \n")
    assert read_users(path) == ["1", "2"]
    path.write_text("\n")
    with pytest.raises(RepositoryError, match="holds no user ids"):
        read_users(path)
