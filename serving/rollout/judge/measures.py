"""What is compared between stable and canary, and how much worse a canary may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shortlist.serving.rollout.judge.sequential import Bet

__all__ = ["Limits", "Measure", "Pair", "Side", "make_measures"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One version's part of a pair.

    Attributes:
        error: What went wrong; None where there was an answer.
        seconds: Until the answer or the error.
        candidate_ids: The answer; None where it is not known, as for real traffic.
    """

    error: str | None
    seconds: float
    candidate_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One observation: stable and canary beside each other."""

    stable: Side
    canary: Side


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much worse the canary may be.

    Attributes:
        errors: Share of requests by which it may fail more often.
        empty: Share of answers by which it may be empty more often.
        slow: Share of requests by which it may be the slower one more often. Slower means
            `latency_ratio` times as long and `latency_slack_ms` longer.
        latency_ratio: See `slow`.
        latency_slack_ms: See `slow`.
        min_overlap: Least mean share of stable's top k that the canary returns too.
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
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name):g}")
        if self.latency_ratio < 1 or self.latency_slack_ms < 0:
            raise ValueError("latency_ratio must be at least 1 and latency_slack_ms at least 0")


class Measure:
    """One thing that is compared: how much worse the canary is, pair by pair.

    Attributes:
        name: What it is.
        limit: How much worse it may be on average.
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
        """Pairs that told something about this."""
        return self.fine.count

    def observe(self, stable: float, canary: float, difference: float) -> None:
        """Takes one pair into account.

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
        """Means and evidence, for the record."""
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
        """The means, for a sentence."""
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
        """Takes one pair into account; measures that it tells nothing about stay."""
        stable, canary = pair.stable, pair.canary
        failed = float(stable.error is not None), float(canary.error is not None)
        self.errors.observe(*failed, failed[1] - failed[0])
        if any(failed):
            return  # how long a failure takes, and what it lacks, tells nothing more
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
    """Fresh measures.

    Args:
        limits: How much worse the canary may be.
        answers: Whether pairs hold answers; real traffic tells only errors and latencies.
    """
    return Measures(limits, answers=answers)
