"""Judges a canary: pairs come in, a verdict with its reasons comes out."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shortlist.serving.rollout.judge.measures import Limits, Measure, Pair, make_measures

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a judge decided.

    Attributes:
        promote: Whether the canary is to become stable; otherwise it is to go.
        why: One paragraph.
        pairs: Pairs of answers that were compared.
        seconds: What it took.
        measures: Means, limits and evidence by name.
        errors: Some of the canary's errors, each once.
    """

    promote: bool
    why: str
    pairs: int
    seconds: float
    measures: Mapping[str, Mapping[str, Any]]
    errors: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The record."""
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
    """Compares until the time is over, or until the canary is surely worse.

    A canary that is worse than a limit is rolled back as soon as that is sure. One that
    is within all limits is promoted when the time is over. One of which neither is sure
    then is rolled back too: nothing is promoted that was not shown to be good.

    Args:
        pairs: Stable and canary beside each other, or None where there is nothing new; may
            end early.
        limits: How much worse the canary may be, and how sure to be.
        duration: Seconds.
        answers: Whether pairs hold answers.
        clock: Monotonic seconds.
    """
    measures = make_measures(limits, answers=answers)
    started = clock()
    count = 0
    errors: dict[str, None] = {}
    # Any one of several alarms may go off by chance: they share alpha.
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
        worse = [one for one in measures.all if one.worse.decided(alarm)]
        if worse or clock() - started >= duration:
            break
    seconds = clock() - started
    unsure = [one for one in measures.all if not one.fine.decided(limits.alpha)]
    return Judgement(
        promote=not worse and not unsure,
        why=_why(measures.all, worse, unsure, count, seconds, limits, tuple(errors)),
        pairs=count,
        seconds=seconds,
        measures={one.name: one.as_json() for one in measures.all},
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
    if worse:
        reasons = "; ".join(one.in_words() for one in worse)
        example = f" One error: {errors[0]}." if errors else ""
        return f"{seen}The canary is worse than allowed, {sure}: {reasons}.{example} Rolled back."
    if unsure:
        reasons = "; ".join(one.in_words() for one in unsure)
        return (
            f"{seen}That was not enough to be sure that the canary is as good as allowed: "
            f"{reasons}. Rolled back; give it more time or more requests."
        )
    reasons = "; ".join(one.in_words() for one in measures)
    return f"{seen}The canary is within all limits, {sure}: {reasons}. Promoted."
