"""Events since the parent version, in the positions of the corpus after an update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs

__all__ = ["EventsSince"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EventsSince:
    """Events, in the order of time.

    Attributes:
        user_ids: `[num_users]` distinct ids of users with events.
        users: int64 `[num_events]`, positions in `user_ids`.
        candidates: int32 `[num_events]`, positions in the corpus.
        times: int64 `[num_events]`, seconds since the epoch; None if unknown.
        weights: float32 `[num_events]`; None if all count 1.
        num_candidates: Size of the corpus.
        unknown: Number of further events, whose candidates are not in the corpus.
        earlier: Number of further events, which the parent version has already.
    """

    user_ids: Sequence[str]
    users: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64] | None
    weights: npt.NDArray[np.float32] | None
    num_candidates: int
    unknown: int = 0
    earlier: int = 0

    @classmethod
    def of_dataset(
        cls, dataset: Dataset | None, corpus: Sequence[str], newest: int | None
    ) -> "EventsSince":
        """Return the events of a data set whose candidates are in a corpus.

        Args:
            dataset: Interactions; None for none.
            corpus: Candidate ids.
            newest: Time of the newest event of the parent version; events up to it are left
                out. None if it is unknown.
        """
        if dataset is None:
            nothing = np.empty(0, np.int64)
            return cls(
                user_ids=(),
                users=nothing,
                candidates=nothing.astype(np.int32),
                times=None,
                weights=None,
                num_candidates=len(corpus),
            )
        position = {key: number for number, key in enumerate(corpus)}
        place = np.array([position.get(key, -1) for key in dataset.candidate_ids], np.int32)
        candidates, times = place[dataset.candidate_positions], dataset.timestamps
        late = np.ones(len(candidates), np.bool_)
        if times is not None and newest is not None:
            late = times > newest
        rows = np.flatnonzero(late & (candidates >= 0))
        if times is not None:
            rows = rows[np.argsort(times[rows], kind="stable")]
        return cls(
            user_ids=dataset.user_ids,
            users=dataset.user_positions[rows].astype(np.int64),
            candidates=candidates[rows],
            times=None if times is None else times[rows],
            weights=None if dataset.weights is None else dataset.weights[rows],
            num_candidates=len(corpus),
            unknown=int(np.sum(late & (candidates < 0))),
            earlier=int(np.sum(~late)),
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def newest(self) -> int | None:
        """Time of the newest event; None if it is unknown."""
        return None if self.times is None or not len(self.times) else int(self.times.max())

    def histories(
        self, user_ids: Sequence[str], chosen: npt.NDArray[np.bool_] | None = None
    ) -> Histories:
        """Return the events of some users, one row each.

        Args:
            user_ids: Users; others are left out.
            chosen: Bool `[num_events]`, events that count; None for all.
        """
        row_of = self._rows(user_ids)
        rows = row_of[self.users]
        own = np.flatnonzero((rows >= 0) if chosen is None else (rows >= 0) & chosen)
        order = own[np.argsort(rows[own], kind="stable")]
        weights = None if self.weights is None else self.weights[order]
        return Histories(
            events=Pairs.by_row(
                rows[order], self.candidates[order], num_rows=len(user_ids), weights=weights
            ),
            times=None if self.times is None else self.times[order],
            num_candidates=self.num_candidates,
        )

    def of_users(self) -> Mapping[str, list[int]]:
        """Return the numbers of the events of each user, oldest first."""
        events: dict[str, list[int]] = {}
        for event, user in enumerate(self.users.tolist()):
            events.setdefault(self.user_ids[user], []).append(event)
        return events

    def _rows(self, user_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        row = {key: number for number, key in enumerate(user_ids)}
        return np.array([row.get(key, -1) for key in self.user_ids], np.int64)
