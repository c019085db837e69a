"""Judge a canary: from pairs to a verdict with reasons."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shortlist.serving.rollout.judge.measures import Limits, Measure, Pair, make_measures

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Decision about a canary.

    Attributes:
        promote: Whether the canary becomes stable; otherwise it is rolled back.
        why: Reasons, in one paragraph.
        pairs: Number of pairs.
        seconds: Duration.
        measures: Means, limits and evidence by name of the measure.
        errors: Some distinct errors of the canary.
    """

    promote: bool
    why: str
    pairs: int
    seconds: float
    measures: Mapping[str, Mapping[str, Any]]
    errors: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the record for the log."""
        return {
            "verdict": "promote" if self.promote else "roll back",
            "why": self.why,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 1),
            "measures": dict(self.measures),
            "errors": list(self.errors),
        }


def judge(
    pairs: Iterator[Pair | None],
    *,
    limits: Limits,
    duration: float,
    answers: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Judgement:
    """Compare until time is up, or until the canary is certainly worse.

    A canary that is worse than a limit is rolled back as soon as that is certain. One that is
    within all limits is promoted when time is up. If neither is certain then, it is rolled
    back: only what was shown to be good is promoted.

    Args:
        pairs: Pairs, or `None` if there is nothing new; may end early.
        limits: How much worse the canary may be, and with what certainty.
        duration: Time in seconds.
        answers: Whether pairs hold answers.
        clock: Monotonic clock in seconds.
    """
    measures = make_measures(limits, answers=answers)
    started = clock()
    count = 0
    errors: dict[str, None] = {}
    # Each of several alarms may go off by chance, so they share alpha.
    alarm = limits.alpha / len(measures.all)
    worse: list[Measure] = []
    for pair in pairs:
        if pair is None:
            if clock() - started >= duration:
                break
            continue
        count += 1
        measures.observe(pair)
        if pair.canary.error is not None and len(errors) < 5:
            errors.setdefault(pair.canary.error)
        worse = [measure for measure in measures.all if measure.worse.decided(alarm)]
        if worse or clock() - started >= duration:
            break
    seconds = clock() - started
    unsure = [measure for measure in measures.all if not measure.fine.decided(limits.alpha)]
    return Judgement(
        promote=not worse and not unsure,
        why=_why(measures.all, worse, unsure, count, seconds, limits, tuple(errors)),
        pairs=count,
        seconds=seconds,
        measures={measure.name: measure.as_json() for measure in measures.all},
        errors=tuple(errors),
    )


def _why(
    measures: list[Measure],
    worse: list[Measure],
    unsure: list[Measure],
    count: int,
    seconds: float,
    limits: Limits,
    errors: tuple[str, ...],
) -> str:
    seen = f"In {seconds:.0f} s {count} pairs of requests were compared. "
    sure = f"with an error probability of at most {limits.alpha:g}"
    example = f" One error: {errors[0]}." if errors else ""
    if worse:
        reasons = "; ".join(measure.in_words() for measure in worse)
        return f"{seen}The canary is worse than allowed, {sure}: {reasons}.{example} Rolled back."
    if unsure:
        reasons = "; ".join(measure.in_words() for measure in unsure)
        return (
            f"{seen}That was not enough to be sure that the canary is as good as allowed: "
            f"{reasons}.{example} Rolled back; give it more time or more requests."
        )
    reasons = "; ".join(measure.in_words() for measure in measures)
    return f"{seen}The canary is within all limits, {sure}: {reasons}. Promoted."
