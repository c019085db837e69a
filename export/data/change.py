"""A change of a corpus: candidates that stay, and those that come."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CorpusChange"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CorpusChange:
    """Candidates that stay keep their order and come first; new ones follow.

    Attributes:
        before: Size of the corpus before, n.
        kept: Int64 `[m]`, ascending positions before of those that stay.
        added: Number of new candidates.
    """

    before: int
    kept: npt.NDArray[np.int64]
    added: int = 0

    @property
    def after(self) -> int:
        """Size of the corpus after."""
        return len(self.kept) + self.added

    def moved(self) -> npt.NDArray[np.int32]:
        """Return the position after of each candidate before, int32 `[n + 1]`.

        It is `after` for those that go, and for position n, which stands for padding.
        """
        moved = np.full(self.before + 1, self.after, np.int32)
        moved[self.kept] = np.arange(len(self.kept), dtype=np.int32)
        return moved

    def rows(
        self, table: npt.NDArray[np.float32], added: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return the rows of a table `[n, ...]` after, given those of new candidates."""
        return np.concatenate([table[self.kept], added.astype(table.dtype, copy=False)])
