"""What each user already has, inside a servable."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf

__all__ = ["SeenCandidates"]


class SeenCandidates(tf.Module):
    """Each user's candidates of the training part: 4 bytes per interaction."""

    def __init__(
        self,
        user_positions: npt.NDArray[np.int32],
        candidate_positions: npt.NDArray[np.int32],
        *,
        num_users: int,
        num_candidates: int,
    ) -> None:
        """Sorts the interactions by user and drops repeated ones.

        Args:
            user_positions: `[num_interactions]`.
            candidate_positions: `[num_interactions]`.
            num_users: Users, with or without interactions.
            num_candidates: Candidates; stands for "none" in the answers.
        """
        super().__init__()
        self._padding = num_candidates
        keys = np.unique(user_positions.astype(np.int64) * num_candidates + candidate_positions)
        users, candidates = np.divmod(keys, num_candidates)
        starts = np.searchsorted(users, np.arange(num_users + 1))
        # One more, empty, for users that are not known.
        self._starts = tf.Variable(np.append(starts, starts[-1]), dtype=tf.int64, trainable=False)
        self._candidates = tf.Variable(candidates.astype(np.int32), trainable=False)
        self._num_users = num_users

    def __call__(self, user_positions: tf.Tensor) -> tf.Tensor:
        """What some users have seen.

        Args:
            user_positions: Int64 `[batch]`, -1 for a user that is not known.

        Returns:
            Candidate positions int32 `[batch, most seen by one of them]`, padded with
            the number of candidates.
        """
        users = tf.where(user_positions < 0, tf.cast(self._num_users, tf.int64), user_positions)
        starts, ends = tf.gather(self._starts, users), tf.gather(self._starts, users + 1)
        entries = tf.ragged.range(starts, ends, row_splits_dtype=tf.int64)
        seen = entries.with_flat_values(tf.gather(self._candidates, entries.flat_values))
        return seen.to_tensor(default_value=self._padding)
