"""Measures that compare a canary with stable, and how much worse it may be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Bet", "Limits", "Measure", "Pair", "Side", "make_measures"]

_BETS = 12  # in parallel, each half as bold as the one before


@dataclass(frozen=True, kw_only=True)
class Side:
    """One version's answer in a pair.

    Attributes:
        error: Error message; `None` for an answer.
        seconds: Time until the answer or the error.
        candidate_ids: The answer; `None` if unknown, as in real traffic.
    """

    error: str | None
    seconds: float
    candidate_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One observation: answers of stable and canary."""

    stable: Side
    canary: Side


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much worse the canary may be.

    Attributes:
        errors: Excess share of failed requests.
        empty: Excess share of empty answers.
        slow: Excess share of slow requests. Slow means `latency_ratio` times as long plus
            `latency_slack_ms`.
        latency_ratio: Factor in the definition of `slow`.
        latency_slack_ms: Offset in the definition of `slow`.
        min_overlap: Minimum mean share of stable's top k that the canary also returns.
        alpha: Probability of rolling back a canary that is within all limits, and of
            promoting one that is not.
    """

    errors: float = 0.01
    empty: float = 0.02
    slow: float = 0.25
    latency_ratio: float = 1.25
    latency_slack_ms: float = 1.0
    min_overlap: float = 0.05
    alpha: float = 0.01

    def __post_init__(self) -> None:
        for name in ("errors", "empty", "slow", "min_overlap", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name):g}")
        if self.latency_ratio < 1 or self.latency_slack_ms < 0:
            raise ValueError("latency_ratio must be at least 1 and latency_slack_ms at least 0")


class Bet:
    """Evidence that the mean of bounded observations lies above, or below, a value.

    With a fixed threshold, frequent looks would cross it by chance. Here a stake of 1 is bet
    against the hypothesis: each observation multiplies it by `1 + bet * (x - mean)`. If the
    hypothesis holds, the stake cannot grow in expectation, so it ever reaches `1 / alpha` with
    a probability of at most alpha (Ville's inequality; see Waudby-Smith and Ramdas,
    "Estimating means of bounded random variables by betting", 2024). The mean of several
    parallel bets does not depend on knowing the size of the effect.

    Attributes:
        count: Observations so far.
    """

    def __init__(self, *, value: float, low: float, high: float, above: bool) -> None:
        """Start with a stake of 1.

        Args:
            value: Bound of the hypothesis: the mean is at most, or at least, this.
            low: Smallest possible observation.
            high: Largest possible observation.
            above: Whether to look for a mean above `value` rather than below.
        """
        if not low < value < high:
            raise ValueError(f"value must be between {low:g} and {high:g}, got {value:g}")
        self.count = 0
        self._value, self._low, self._high, self._above = value, low, high, above
        # The boldest bet keeps a tenth of the stake at the worst observation.
        worst = value - low if above else high - value
        self._bets = [0.9 / worst * 0.5**step for step in range(_BETS)]
        self._logs = [0.0] * _BETS

    def observe(self, x: float) -> None:
        """Take one observation into account.

        Raises:
            ValueError: The observation is out of bounds.
        """
        if not self._low <= x <= self._high:
            raise ValueError(
                f"an observation must be between {self._low:g} and {self._high:g}, got {x:g}"
            )
        gain = x - self._value if self._above else self._value - x
        self._logs = [
            log + math.log1p(bet * gain) for log, bet in zip(self._logs, self._bets, strict=True)
        ]
        self.count += 1

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the stake."""
        top = max(self._logs)
        return top + math.log(sum(math.exp(log - top) for log in self._logs) / _BETS)

    def decided(self, alpha: float) -> bool:
        """Return whether the hypothesis is refuted, wrongly with probability `alpha` at most."""
        return self.log_evidence >= -math.log(alpha)


class Measure:
    """One measure: how much worse the canary is, pair by pair.

    Attributes:
        name: Name of the measure.
        limit: How much worse the canary may be on average.
        worse: Evidence that it is worse than that.
        fine: Evidence that it is not.
    """

    def __init__(self, name: str, *, limit: float, low: float) -> None:
        self.name = name
        self.limit = limit
        self.worse = Bet(value=limit, low=low, high=1.0, above=True)
        self.fine = Bet(value=limit, low=low, high=1.0, above=False)
        self._stable = self._canary = self._difference = 0.0

    @property
    def count(self) -> int:
        """Number of pairs that apply to this measure."""
        return self.fine.count

    def observe(self, stable: float, canary: float, difference: float) -> None:
        """Take one pair into account.

        Args:
            stable: Value of stable, for the record.
            canary: Value of the canary, for the record.
            difference: How much worse the canary is.
        """
        self._stable += stable
        self._canary += canary
        self._difference += difference
        self.worse.observe(difference)
        self.fine.observe(difference)

    def as_json(self) -> Mapping[str, Any]:
        """Return means and evidence, for the record."""
        count = max(1, self.count)
        return {
            "pairs": self.count,
            "stable": round(self._stable / count, 6),
            "canary": round(self._canary / count, 6),
            "worse_by": round(self._difference / count, 6),
            "limit": self.limit,
            "log_evidence_worse": round(self.worse.log_evidence, 3),
            "log_evidence_fine": round(self.fine.log_evidence, 3),
        }

    def in_words(self) -> str:
        """Return the means as part of a sentence."""
        count = max(1, self.count)
        return (
            f"{self.name}: stable {self._stable / count:.4g}, canary {self._canary / count:.4g} "
            f"(worse by {self._difference / count:.4g}, allowed {self.limit:.4g})"
        )


class Measures:
    """All measures of one judgement."""

    def __init__(self, limits: Limits, *, answers: bool) -> None:
        self._limits = limits
        self.errors = Measure("errors", limit=limits.errors, low=-1.0)
        self.slow = Measure("slow requests", limit=limits.slow, low=-1.0)
        self.empty = Measure("empty answers", limit=limits.empty, low=-1.0)
        self.overlap = Measure("answers unlike stable's", limit=1 - limits.min_overlap, low=0.0)
        self.all = [self.errors, self.slow]
        if answers:
            self.all += [self.empty, self.overlap]

    def observe(self, pair: Pair) -> None:
        """Take one pair into account, for the measures that it applies to."""
        stable, canary = pair.stable, pair.canary
        failed = float(stable.error is not None), float(canary.error is not None)
        self.errors.observe(*failed, failed[1] - failed[0])
        if any(failed):
            return  # the latency and the answer of a failure mean nothing
        ratio, slack = self._limits.latency_ratio, self._limits.latency_slack_ms / 1000
        slow = (
            float(stable.seconds > canary.seconds * ratio + slack),
            float(canary.seconds > stable.seconds * ratio + slack),
        )
        self.slow.observe(*slow, slow[1] - slow[0])
        if stable.candidate_ids is None or canary.candidate_ids is None:
            return
        empty = float(not stable.candidate_ids), float(not canary.candidate_ids)
        self.empty.observe(*empty, empty[1] - empty[0])
        if stable.candidate_ids:
            shared = set(stable.candidate_ids) & set(canary.candidate_ids)
            unlike = 1 - len(shared) / len(set(stable.candidate_ids))
            self.overlap.observe(0.0, unlike, unlike)


def make_measures(limits: Limits, *, answers: bool) -> Measures:
    """Return new measures.

    Args:
        limits: How much worse the canary may be.
        answers: Whether pairs hold answers; real traffic holds only errors and latencies.
    """
    return Measures(limits, answers=answers)
