"""Histories of users, which baselines are fitted to and score from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs

__all__ = ["Fit", "Histories", "Score", "Settings"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Histories:
    """Events of some users, oldest first.

    Attributes:
        events: A row per user, with the candidate positions of the user's events.
        times: int64 `[num_events]`, seconds since the epoch, or None.
        num_candidates: Size of the corpus.
    """

    events: Pairs
    times: npt.NDArray[np.int64] | None = None
    num_candidates: int

    @classmethod
    def of_users(cls, dataset: Dataset, part: npt.NDArray[np.int64]) -> Self:
        """Group interactions by user: `[num_users]` histories, ordered by time.

        Interactions without times, or with equal ones, keep the order of the data.
        """
        times = dataset.timestamps
        order = part[
            np.lexsort((part if times is None else times[part], dataset.user_positions[part]))
        ]
        return cls(
            events=Pairs.by_user(dataset, order),
            times=None if times is None else times[order],
            num_candidates=len(dataset.candidate_ids),
        )

    def take(self, users: npt.NDArray[np.integer]) -> "Histories":
        """Return the histories of some users, by position."""
        _, entries = self.events.cells(users)
        starts = np.concatenate([[0], np.cumsum(self.events.counts[users])])
        return Histories(
            events=Pairs(starts=starts, columns=self.events.columns[entries]),
            times=None if self.times is None else self.times[entries],
            num_candidates=self.num_candidates,
        )

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """Row of each event, `[num_events]`."""
        return np.repeat(np.arange(self.events.num_rows), self.events.counts)

    @property
    def later_events(self) -> npt.NDArray[np.int64]:
        """Number of later events of the same user, for each event, `[num_events]`."""
        ends = np.repeat(self.events.starts[1:], self.events.counts)
        return ends - 1 - np.arange(len(self.events.columns))

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


Settings = Mapping[str, float]

# Scores of histories with some settings: float32 `[num_histories, num_candidates]`, which the
# caller may modify.
Score = Callable[[Histories, Settings], npt.NDArray[np.float32]]

# Fits a baseline to histories. What it returns scores any histories, also of other users.
Fit = Callable[[Histories, Settings], Score]
