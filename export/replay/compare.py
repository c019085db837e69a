"""Compares two versions' answers to recorded queries."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shortlist.clients.contract import DEFAULT_K
from shortlist.export.replay.outcomes import Join
from shortlist.export.replay.result import Changed, Limit, OutcomeFigures, SideFigures
from shortlist.export.replay.sides import Answered, Side
from shortlist.serving.request_log.queries import RecordedQuery
from shortlist.serving.request_log.stats import Latencies
from shortlist.serving.rollout.judge.measures import Limits, Pair, make_measures
from shortlist.serving.rollout.judge.measures import Side as Judged

__all__ = ["Comparison", "kendall"]

_ERRORS: Final = 5  # messages to tell apart
_EVENTS: Final = 3  # of a history to show
_STEPS: Final = 10  # of the overlap


@dataclass(kw_only=True)
class _Tally:
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    told: int = 0
    unknown: int = 0
    shown: set[str] = field(default_factory=set)
    latencies: Latencies = field(default_factory=Latencies)

    def add(self, answer: Answered, k: int, user_id: str) -> None:
        if answer.error is not None:
            self.failed += 1
            if answer.error in self.errors or len(self.errors) < _ERRORS:
                self.errors[answer.error] += 1
            return
        self.latencies.add(answer.seconds)
        self.empty += not answer.candidate_ids
        self.told += answer.known_user is not None and bool(user_id)
        self.unknown += answer.known_user is False and bool(user_id)
        self.shown.update(answer.candidate_ids[:k])

    def figures(self, name: str) -> SideFigures:
        p50, p99 = (self.latencies.quantile(share) for share in (0.5, 0.99))
        return SideFigures(
            name=name,
            failed=self.failed,
            errors=dict(self.errors),
            empty=self.empty,
            unknown_users=self.unknown if self.told else None,
            distinct=len(self.shown),
            p50_ms=None if p50 is None else round(p50 * 1e3, 3),
            p99_ms=None if p99 is None else round(p99 * 1e3, 3),
        )


class Comparison:
    """Asks two versions the same, in turns, and compares.

    Args:
        sides: The versions.
        k: Candidates to ask for and to compare; `None` for as many as recorded or usual.
        limits: How much worse the second version may be.
        join: Interactions after the queries; `None` without any.
        shown: Most different lists to keep.
        title_of: Returns the name of a candidate.
    """

    def __init__(
        self,
        sides: tuple[Side, Side],
        *,
        k: int | None,
        limits: Limits,
        join: Join | None = None,
        shown: int = 20,
        title_of: Callable[[str], str] = str,
    ) -> None:
        self._sides = sides
        self._asked_k = k
        self._k = k or DEFAULT_K
        self._join = join
        self._shown = shown
        self._title_of = title_of
        self._tallies = _Tally(), _Tally()
        self._measures = make_measures(limits, answers=True)
        self._overlaps: list[int] = [0] * (_STEPS + 1)
        self._overlap = self._tau = 0.0
        self._lists = self._same = self._ordered = self._new_empty = 0
        self._changed: list[tuple[float, int, Changed]] = []
        self._count = itertools.count()

    def warm_up(self, queries: Iterable[RecordedQuery]) -> None:
        """Ask both a query of each form, as the first run of a signature takes seconds."""
        forms = {frozenset(query.arguments): query for query in queries}
        for query in forms.values():
            for side in self._sides:
                side.ask(self._arguments(query))

    def add(self, query: RecordedQuery) -> None:
        """Ask both and compare the answers."""
        number = next(self._count)
        # The order changes, so that neither always gets a warm cache.
        order = (0, 1) if number % 2 else (1, 0)
        arguments = self._arguments(query)
        answers = {at: self._sides[at].ask(arguments) for at in order}
        first, second = answers[0], answers[1]
        for tally, answer in zip(self._tallies, (first, second), strict=True):
            tally.add(answer, self._k, query.user_id)
        self._measures.observe(Pair(stable=self._judged(first), canary=self._judged(second)))
        chosen: Sequence[str] = ()
        before, after = first.candidate_ids[: self._k], second.candidate_ids[: self._k]
        if self._join is not None:  # a failed query shows nothing, so it has no hits
            recorded = query.answer.candidate_ids[: self._k]
            chosen = self._join.add(query.user_id, query.time, (before, after, recorded))
        if first.error is None and second.error is None:
            self._compare(query, number, before, after, chosen)

    def _arguments(self, query: RecordedQuery) -> Mapping[str, Any]:
        asked = {} if self._asked_k is None else {"k": self._asked_k}
        return {**query.arguments, **asked}

    def _judged(self, answer: Answered) -> Judged:
        return Judged(
            error=answer.error,
            seconds=answer.seconds,
            candidate_ids=answer.candidate_ids[: self._k],
        )

    def _compare(
        self,
        query: RecordedQuery,
        number: int,
        before: tuple[str, ...],
        after: tuple[str, ...],
        chosen: Sequence[str],
    ) -> None:
        self._new_empty += bool(before) and not after
        if not before:
            return
        common = set(before) & set(after)
        overlap = len(common) / len(set(before))
        self._lists += 1
        self._overlap += overlap
        self._overlaps[int(overlap * _STEPS)] += 1
        self._same += before == after
        if len(common) > 1:
            self._ordered += 1
            self._tau += kendall(before, after)
        entry = (-overlap, -number)
        if before == after or (len(self._changed) >= self._shown and entry < self._changed[0][:2]):
            return
        changed = Changed(
            user_id=query.user_id,
            time=query.time,
            history=[self._title_of(own) for own in query.history[-_EVENTS:]],
            overlap=overlap,
            before=[self._title_of(own) for own in before],
            after=[self._title_of(own) for own in after],
            chosen=[self._title_of(own) for own in chosen],
        )
        if len(self._changed) < self._shown:
            heapq.heappush(self._changed, (*entry, changed))
        else:
            heapq.heapreplace(self._changed, (*entry, changed))

    def figures(self) -> dict[str, Any]:
        """Return the fields of `Replay` about the answers."""
        names = [side.name for side in self._sides]
        return {
            "k": self._k,
            "sides": tuple(
                tally.figures(name) for tally, name in zip(self._tallies, names, strict=True)
            ),
            "overlap": self._overlap / self._lists if self._lists else None,
            "overlaps": tuple(self._overlaps),
            "same_lists": self._same / self._lists if self._lists else None,
            "rank_correlation": self._tau / self._ordered if self._ordered else None,
            "new_empty": self._new_empty,
            "changed": tuple(entry for *_, entry in sorted(self._changed, reverse=True)),
        }

    def limits(self, outcomes: OutcomeFigures | None, max_drop: float) -> list[Limit]:
        """Return the limits.

        Args:
            outcomes: What users did; `None` without interactions.
            max_drop: Largest drop of the hit rate, as a share of the first version's.
        """
        limits = []
        for measure in self._measures.all:
            figures = measure.as_json()
            worse, by_overlap = figures["worse_by"], measure is self._measures.overlap
            limits.append(
                Limit(
                    name=f"overlap@{self._k}" if by_overlap else measure.name,
                    first=None if by_overlap else figures["stable"],
                    second=1 - worse if by_overlap else figures["canary"],
                    worse_by=worse,
                    allowed=measure.limit,
                    kept=worse <= measure.limit,
                )
            )
        if outcomes is not None and outcomes.difference_interval is not None:
            first, second, _ = outcomes.hit_rates
            allowed = max_drop * first
            limits.append(
                Limit(
                    name=f"hit rate@{self._k}",
                    first=first,
                    second=second,
                    worse_by=0.0 - outcomes.difference,  # not -0
                    allowed=allowed,
                    kept=outcomes.difference_interval.high >= -allowed,
                )
            )
        return limits


def kendall(first: Sequence[str], second: Sequence[str]) -> float:
    """Return Kendall's tau over the items that both have, which must be at least two."""
    place = {item: rank for rank, item in enumerate(second)}
    ranks = [place[item] for item in first if item in place]
    pairs = list(itertools.combinations(ranks, 2))
    return sum(1 if a < b else -1 for a, b in pairs) / len(pairs)
