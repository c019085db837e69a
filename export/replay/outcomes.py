"""Hit rates of lists by what users chose afterwards."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from shortlist.export.data.outcomes import Outcomes
from shortlist.export.evaluation.intervals import share_interval
from shortlist.export.replay.result import OutcomeFigures

__all__ = ["Join"]

_LISTS: Final = 3  # of the two versions, and the recorded one


class Join:
    """Attributes each interaction to the latest of a user's queries before it.

    First all queries of the log are observed, then those that were asked again are added, both in
    any order. Each interaction counts once; those that follow a query that was not asked again do
    not count.

    Args:
        outcomes: Interactions.
        window: Seconds after a query in which interactions count.
    """

    def __init__(self, outcomes: Outcomes, *, window: float) -> None:
        self._outcomes = outcomes
        self._window = window
        size = len(outcomes.times)
        self._latest = np.full(size, -np.inf)  # time of the latest query before
        self._counted = np.zeros(size, np.bool_)
        self._hits = np.zeros([_LISTS, size], np.bool_)

    def observe(self, user_id: str, time: float) -> None:
        """Take a query of the log into account."""
        for place in self._after(user_id, time):
            self._latest[place] = max(self._latest[place], time)

    def follow(self, user_id: str, time: float) -> bool:
        """Return whether interactions count for a query."""
        return any(self._latest[place] == time for place in self._after(user_id, time))

    def add(self, user_id: str, time: float, lists: Sequence[Sequence[str]]) -> list[str]:
        """Take a query's lists into account; return what the user chose within the window."""
        outcomes = self._outcomes
        places = self._after(user_id, time)
        chosen = [outcomes.candidate_ids[outcomes.candidates[place]] for place in places]
        for place, candidate in zip(places, chosen, strict=True):
            if self._latest[place] == time and not self._counted[place]:
                self._counted[place] = True
                self._hits[:, place] = [candidate in shown for shown in lists]
        return chosen

    def _after(self, user_id: str, time: float) -> range:
        return self._outcomes.after(user_id, time, self._window) if user_id else range(0)

    def share_before(self, time: float | None) -> float:
        """Return the share of the interactions that count and were before a moment."""
        counted = self._outcomes.times[self._counted]
        return float(np.mean(counted < time)) if time is not None and len(counted) else 0.0

    def figures(self, notes: Sequence[str]) -> OutcomeFigures | None:
        """Return the hit rates; `None` if no interaction follows a query."""
        owners = self._outcomes.owners[self._counted]
        if not len(owners):
            return None
        hits = self._hits[:, self._counted]
        first, second, recorded = (share_interval(owners, row) for row in hits)
        difference = hits[1].astype(np.float64) - hits[0]
        rates = hits.mean(axis=1)
        return OutcomeFigures(
            method="plain",
            window=self._window,
            interactions=len(owners),
            users=len(np.unique(owners)),
            hit_rates=(float(rates[0]), float(rates[1]), float(rates[2])),
            intervals=(first, second, recorded),
            difference=float(difference.mean()),
            difference_interval=share_interval(owners, difference),
            notes=tuple(notes),
        )
