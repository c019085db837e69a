"""Interactions as outcomes: what users chose after a moment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import time_order

__all__ = ["Outcomes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Interactions by user, in the order of time.

    Attributes:
        users: Row of each user id.
        starts: int64 `[num_users + 1]`, where the interactions of each row begin.
        times: int64 `[num_interactions]`, seconds since the epoch.
        candidates: int32 `[num_interactions]`, positions in `candidate_ids`.
        candidate_ids: Candidate ids.
    """

    users: dict[str, int]
    starts: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    candidate_ids: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, user_id: Callable[[str], str] = str) -> Self:
        """Take the interactions of some data.

        Args:
            dataset: Data.
            user_id: Returns what stands for a user id in the request log.

        Raises:
            DataError: The interactions have no times.
        """
        if dataset.timestamps is None:
            raise DataError(
                f"{dataset.name} has no times, which tell the interactions that follow a "
                "request; name their column with --timestamp-column"
            )
        order = time_order(dataset, np.arange(dataset.num_interactions))
        counts = np.bincount(dataset.user_positions, minlength=len(dataset.user_ids))
        return cls(
            users={user_id(own): row for row, own in enumerate(dataset.user_ids)},
            starts=np.concatenate([[0], np.cumsum(counts)]),
            times=dataset.timestamps[order],
            candidates=dataset.candidate_positions[order],
            candidate_ids=dataset.candidate_ids,
        )

    def after(self, user_id: str, time: float, window: float) -> range:
        """Return the places of a user's interactions after a moment, within `window` seconds."""
        row = self.users.get(user_id)
        if row is None:
            return range(0)
        start, stop = self.starts[row : row + 2].tolist()
        ends = np.searchsorted(self.times[start:stop], [time, time + window], side="right")
        return range(start + int(ends[0]), start + int(ends[1]))

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """Row of the user of each interaction, `[num_interactions]`."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
