"""Histories: what users did, in the order of time."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.change import CorpusChange
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs

__all__ = ["LONGEST_GAP", "Histories", "KeptEvents", "time_order"]

_DAY = 86_400.0

LONGEST_GAP = 31  # bucket of all gaps from 2^30 seconds


def time_order(dataset: Dataset, part: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sort positions of interactions by user, then by time.

    Interactions without times, or with equal ones, keep the order of the data.
    """
    part = np.sort(part)
    users = dataset.user_positions[part]
    times = np.zeros_like(users) if dataset.timestamps is None else dataset.timestamps[part]
    same, later = users[1:] == users[:-1], times[1:] >= times[:-1]
    if ((users[1:] > users[:-1]) | (same & later)).all():  # as in data that `load` returned
        return part
    return part[np.lexsort((times, users))]


@dataclass(frozen=True, kw_only=True, eq=False)
class Histories:
    """Events of some users, oldest first.

    Attributes:
        events: A row per history, with the candidate positions of its events.
        times: int64 `[num_events]`, seconds since the epoch, or None.
        num_candidates: Size of the corpus.
    """

    events: Pairs
    times: npt.NDArray[np.int64] | None = None
    num_candidates: int

    @classmethod
    def of_users(cls, dataset: Dataset, part: npt.NDArray[np.int64]) -> Self:
        """Group interactions by user: `[num_users]` histories; see `time_order`."""
        return cls.in_order(dataset, time_order(dataset, part))

    @classmethod
    def in_order(cls, dataset: Dataset, order: npt.NDArray[np.int64]) -> Self:
        """Group interactions by user that are already in `time_order`."""
        return cls(
            events=Pairs.by_user(dataset, order),
            times=None if dataset.timestamps is None else dataset.timestamps[order],
            num_candidates=len(dataset.candidate_ids),
        )

    def take(self, rows: npt.NDArray[np.integer]) -> "Histories":
        """Return some of the histories."""
        return self.between(self.events.starts[rows], self.events.starts[rows + 1])

    def last(self, length: int) -> "Histories":
        """Return at most the last `length` events of each history."""
        starts, stops = self.events.starts[:-1], self.events.starts[1:]
        return self.between(np.maximum(starts, stops - length), stops)

    def between(self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> "Histories":
        """Return a history for each pair of places in the events: from start up to before stop."""
        counts = stops - starts
        ends = np.cumsum(counts)
        entries = np.repeat(stops - ends, counts) + np.arange(counts.sum())
        weights = self.events.weights
        return Histories(
            events=Pairs(
                starts=np.concatenate([[0], ends]),
                columns=self.events.columns[entries],
                weights=None if weights is None else weights[entries],
            ),
            times=None if self.times is None else self.times[entries],
            num_candidates=self.num_candidates,
        )

    def __len__(self) -> int:
        """Return the number of histories."""
        return self.events.num_rows

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """Row of each event, `[num_events]`."""
        return np.repeat(np.arange(self.events.num_rows), self.events.counts)

    @property
    def later_events(self) -> npt.NDArray[np.int64]:
        """Number of later events of the same history, for each event, `[num_events]`."""
        ends = np.repeat(self.events.starts[1:], self.events.counts)
        return ends - 1 - np.arange(len(self.events.columns))

    @property
    def gaps(self) -> npt.NDArray[np.int8]:
        """Bucket of the time since the previous event of the same history, `[num_events]`.

        0 if there is none or times are unknown, else 1 + floor(log2(1 + seconds)), at most
        `LONGEST_GAP`.
        """
        buckets = np.zeros(len(self.events.columns), np.int8)
        if self.times is None:
            return buckets
        seconds = np.diff(self.times, prepend=self.times[:1])
        # The exponent of a float64 is exact, unlike a rounded logarithm just below a power of 2.
        exponents = np.frexp(1.0 + seconds)[1]
        buckets[:] = np.minimum(exponents, LONGEST_GAP)
        starts = self.events.starts[:-1]
        buckets[starts[self.events.counts > 0]] = 0
        return buckets

    @property
    def relative_weights(self) -> npt.NDArray[np.float32]:
        """Weight of each event relative to their mean, `[num_events]`."""
        weights = self.events.weights
        if weights is None:
            return np.ones(len(self.events.columns), np.float32)
        return (weights / weights.mean(dtype=np.float64)).astype(np.float32)

    def matrix(self, half_life: float = np.inf) -> Any:
        """Sparse float32 `[num_histories, num_candidates]`.

        An event with n later ones has the weight 0.5^(n / half_life). A candidate that occurs
        several times counts once, as of its last event.
        """
        from scipy.sparse import csr_matrix

        weights = 0.5 ** (self.later_events / half_life)
        keys = self.owners * self.num_candidates + self.events.columns
        cells, last = np.unique(keys[::-1], return_index=True)
        return csr_matrix(
            (weights[::-1][last].astype(np.float32), np.divmod(cells, self.num_candidates)),
            shape=(self.events.num_rows, self.num_candidates),
        )

    def distinct(self) -> Pairs:
        """Candidates of each history, ascending, each once."""
        return Pairs.by_row(
            self.owners, self.events.columns, num_rows=self.events.num_rows, distinct=True
        )

    def counts(self) -> npt.NDArray[np.int64]:
        """Number of events by candidate, int64 `[num_candidates]`."""
        return np.bincount(self.events.columns, minlength=self.num_candidates)

    def popularity(self, half_life_days: float | None = None) -> npt.NDArray[np.float64]:
        """Add up the weights of the events by candidate, `[num_candidates]`.

        Args:
            half_life_days: Age before the latest event at which one counts a half; None if their
                age does not count.
        """
        weights = self.events.weights
        if half_life_days is not None:
            assert self.times is not None
            ages = (self.times.max(initial=0) - self.times) / _DAY
            recency = 0.5 ** (ages / half_life_days)
            weights = recency if weights is None else recency * weights
        counts = np.bincount(self.events.columns, weights, self.num_candidates)
        return counts.astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptEvents:
    """Events of users as a servable keeps them: their times are gone, but not the gaps.

    Attributes:
        events: A row per user, with the candidate positions of its events, oldest first.
        gaps: int8 `[num_events]`, see `Histories.gaps`.
    """

    events: Pairs
    gaps: npt.NDArray[np.int8]

    @classmethod
    def none(cls, num_users: int) -> Self:
        """Return no events of a number of users."""
        nothing = np.empty(0, np.int32)
        return cls(
            events=Pairs(starts=np.zeros(num_users + 1, np.int64), columns=nothing),
            gaps=np.empty(0, np.int8),
        )

    def __len__(self) -> int:
        """Return the number of users."""
        return self.events.num_rows

    def on(self, change: CorpusChange) -> "KeptEvents":
        """Return the events with candidates of the corpus after a change."""
        columns = change.moved()[self.events.columns]
        return self._of(self._owners, columns, columns < change.after)

    def take(self, rows: npt.NDArray[np.integer]) -> "KeptEvents":
        """Return the events of users at rows; none for those at -1."""
        known = np.flatnonzero(rows >= 0)
        places, cells = self.events.cells(rows[known])
        places = known[places]
        weights = self.events.weights
        counts = np.bincount(places, minlength=len(rows))
        starts = np.concatenate([[0], np.cumsum(counts)])
        return KeptEvents(
            events=Pairs(
                starts=starts,
                columns=self.events.columns[cells],
                weights=None if weights is None else weights[cells],
            ),
            gaps=self.gaps[cells],
        )

    def followed_by(self, later: Histories) -> "KeptEvents":
        """Return the events with later ones of the same users after them."""
        weights = None
        if self.events.weights is not None or later.events.weights is not None:
            weights = np.concatenate([_weights(self.events), _weights(later.events)])
        both = KeptEvents(
            events=Pairs(
                starts=self.events.starts,  # replaced below
                columns=np.concatenate([self.events.columns, later.events.columns]),
                weights=weights,
            ),
            gaps=np.concatenate([self.gaps, later.gaps]),
        )
        owners = np.concatenate([self._owners, later.owners])
        return both._of(owners, both.events.columns, np.argsort(owners, kind="stable"))

    @property
    def _owners(self) -> npt.NDArray[np.int64]:
        return np.repeat(np.arange(self.events.num_rows), self.events.counts)

    def _of(
        self,
        owners: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int32],
        chosen: npt.NDArray[Any],
    ) -> "KeptEvents":
        """Return chosen events, which are in the order of their owners."""
        counts = np.bincount(owners[chosen], minlength=self.events.num_rows)
        weights = self.events.weights
        return KeptEvents(
            events=Pairs(
                starts=np.concatenate([[0], np.cumsum(counts)]),
                columns=columns[chosen],
                weights=None if weights is None else weights[chosen],
            ),
            gaps=self.gaps[chosen],
        )


def _weights(events: Pairs) -> npt.NDArray[np.float32]:
    ones = np.ones(len(events.columns), np.float32)
    return ones if events.weights is None else events.weights
