"""Candidates by user, as compressed rows."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset

__all__ = ["Pairs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs of a row and a column, grouped by row: four bytes per pair.

    Attributes:
        starts: int64 `[num_rows + 1]`; the columns of row i are
            `columns[starts[i] : starts[i + 1]]`.
        columns: int32 `[num_pairs]`.
        weights: float32 `[num_pairs]`, positive, what each pair counts; None if all count 1.
    """

    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None = None

    @classmethod
    def by_row(
        cls,
        rows: npt.NDArray[np.integer],
        columns: npt.NDArray[np.integer],
        *,
        num_rows: int,
        distinct: bool = False,
        weights: npt.NDArray[np.float32] | None = None,
    ) -> Self:
        """Group columns by row.

        Args:
            rows: `[num_pairs]`, in 0..num_rows-1.
            columns: `[num_pairs]`, not negative.
            num_rows: Number of rows, including empty ones.
            distinct: Sort the columns of each row and drop repeated ones, instead of keeping
                all of them in the given order; they have no weights.
            weights: `[num_pairs]`; None for 1.
        """
        if distinct:
            width = int(columns.max(initial=0)) + 1
            rows, columns = np.divmod(np.unique(rows.astype(np.int64) * width + columns), width)
            weights = None
        else:
            order = np.argsort(rows, kind="stable")
            columns = columns[order]
            weights = None if weights is None else weights[order]
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))])
        return cls(starts=starts, columns=columns.astype(np.int32, copy=False), weights=weights)

    @classmethod
    def by_user(
        cls, dataset: Dataset, interactions: npt.NDArray[np.int64], *, distinct: bool = False
    ) -> Self:
        """Group the candidates of some interactions by user; see `by_row`."""
        return cls.by_row(
            dataset.user_positions[interactions],
            dataset.candidate_positions[interactions],
            num_rows=len(dataset.user_ids),
            distinct=distinct,
            weights=None if dataset.weights is None else dataset.weights[interactions],
        )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Pairs per row, `[num_rows]`."""
        return np.diff(self.starts)

    def of(self, start: int, stop: int | None = None) -> npt.NDArray[np.int32]:
        """Columns of one row, or of the rows from `start` up to but excluding `stop`."""
        return self.columns[self.starts[start] : self.starts[start + 1 if stop is None else stop]]

    def cells(
        self, rows: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All pairs of some rows.

        Returns:
            Places in `rows`, ascending, and places in `columns`, both int64 `[num_cells]`.
        """
        starts = self.starts[rows]
        counts = self.starts[rows + 1] - starts
        places = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, np.repeat(starts, counts) + within

    def contain(
        self, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.bool_]:
        """Tell which of some pairs are among these, which must be `distinct`; bool `[n]`."""
        width = 1 + max(int(self.columns.max(initial=0)), int(columns.max(initial=0)))
        keys = np.repeat(np.arange(self.num_rows) * width, self.counts) + self.columns
        wanted = rows.astype(np.int64) * width + columns
        places = np.searchsorted(keys, wanted)
        found = places < len(keys)
        found[found] = keys[places[found]] == wanted[found]
        return found
