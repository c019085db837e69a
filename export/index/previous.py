"""An index over an earlier corpus, from which the next one starts."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shortlist.export.data.change import CorpusChange
from shortlist.export.index.base import Effort

__all__ = ["MOST_CHANGE", "Leaves", "PreviousIndex"]

# Factor by which the number of leaves may differ from that of a trained partition; beyond it,
# the leaves and their effort are of little use.
MOST_CHANGE = 1.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaves:
    """Which candidates share a leaf.

    Attributes:
        members: Int32 `[num_leaves, width]` positions; n in an empty place.
        group_size: Number of consecutive leaves that are near each other, a divisor of
            num_leaves.
        num_candidates: Size of the corpus, n.

    Raises:
        ValueError: A member is not a position, or has two places.
    """

    members: npt.NDArray[np.int32]
    group_size: int
    num_candidates: int

    def __post_init__(self) -> None:
        if self.members.min() < 0 or self.members.max() > self.num_candidates:
            raise ValueError(f"members of leaves must lie between 0 and {self.num_candidates}")
        if np.any(self._places() > 1):
            raise ValueError("a candidate must not have two places in leaves")

    def unplaced(self) -> int:
        """Return the number of candidates without a place."""
        return int(np.sum(self._places() == 0))

    def _places(self) -> npt.NDArray[np.int64]:
        return np.bincount(self.members.ravel(), minlength=self.num_candidates + 1)[:-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreviousIndex:
    """What the index of a changed corpus takes from that of the corpus before.

    Attributes:
        effort: Effort in effect.
        explored_leaves: Leaves to search that the last exploration of efforts chose; None if
            that is unknown.
        leaves: Leaves of an inverted file; None if there are none.
    """

    effort: Effort
    explored_leaves: int | None = None
    leaves: Leaves | None = None

    def after(
        self, change: CorpusChange, replaced: npt.NDArray[np.int64] | None = None
    ) -> "PreviousIndex":
        """Return the same index with positions after a change of the corpus.

        Candidates that are gone or have another embedding leave their places.

        Args:
            change: What stays, and how many come.
            replaced: Positions before of candidates that stay with another embedding.

        Raises:
            ValueError: The change is one of another corpus.
        """
        if self.leaves is None:
            return self
        if change.before != self.leaves.num_candidates:
            raise ValueError(
                f"the change is one of {change.before} candidates, but the index has "
                f"{self.leaves.num_candidates}"
            )
        moved = change.moved()
        if replaced is not None:
            moved[replaced] = change.after
        leaves = replace(
            self.leaves, members=moved[self.leaves.members], num_candidates=change.after
        )
        return replace(self, leaves=leaves)

    def with_new_leaves(self, num_leaves: int | None) -> "PreviousIndex | None":
        """Return the effort, without what it has grown by, for leaves that were built again.

        Returns:
            None if there are so many more or fewer leaves that it says little.
        """
        if self.leaves is None or num_leaves is None:
            return self
        change = num_leaves / len(self.leaves.members)
        explored = self.explored_leaves or self.effort.num_leaves_to_search
        if explored is None or max(change, 1 / change) > MOST_CHANGE:
            return None
        explored = math.ceil(change * explored)
        effort = self.effort._replace(num_leaves_to_search=explored)
        return PreviousIndex(effort=effort, explored_leaves=explored)
