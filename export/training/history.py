"""The training part by user, as TensorFlow wants it."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset

__all__ = ["UserHistories"]


class UserHistories(tf.Module):
    """Each user's candidates in some interactions; four bytes per interaction.

    Attributes:
        active: int32 `[num_active]`, positions of the users who have any.
        counts: int64 `[num_users]`, interactions of each user.
        candidate_counts: int64 `[num_candidates]`, interactions of each candidate.
    """

    def __init__(self, dataset: Dataset, interactions: npt.NDArray[np.int64]) -> None:
        super().__init__()
        users = dataset.user_positions[interactions]
        candidates = dataset.candidate_positions[interactions]
        self.counts = counts = np.bincount(users, minlength=len(dataset.user_ids))
        self.active = np.flatnonzero(counts).astype(np.int32)
        self.candidate_counts = np.bincount(candidates, minlength=len(dataset.candidate_ids))
        starts = np.concatenate([[0], np.cumsum(counts)])
        order = np.argsort(users, kind="stable")
        self._starts = tf.Variable(starts, dtype=tf.int64, trainable=False)
        self._candidates = tf.Variable(candidates[order], dtype=tf.int32, trainable=False)

    def entries(self, users: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """All interactions of some users.

        Args:
            users: Int32 `[batch]`.

        Returns:
            Rows int64 `[m]`, in 0..batch-1 and ascending, and candidates int32 `[m]`.
        """
        starts, ends = tf.gather(self._starts, users), tf.gather(self._starts, users + 1)
        entries = tf.ragged.range(starts, ends, row_splits_dtype=tf.int64)
        return entries.value_rowids(), tf.gather(self._candidates, entries.flat_values)
