"""Candidates that each user has already interacted with, inside a servable."""

from shortlist.export._tf import tf
from shortlist.export.data.pairs import Pairs
from shortlist.export.towers.pair_table import PairTable

__all__ = ["SeenCandidates"]


class SeenCandidates(PairTable):
    """Each user's candidates in the fitted part: four bytes per pair."""

    def __init__(self, pairs: Pairs, *, num_candidates: int) -> None:
        """Copy the pairs.

        Args:
            pairs: Candidates by user, distinct.
            num_candidates: Number of candidates, which is also the padding in answers.
        """
        super().__init__(pairs)
        self._padding = num_candidates

    def __call__(self, user_positions: tf.Tensor) -> tf.Tensor:
        """Candidates that some users have seen.

        Args:
            user_positions: Int64 `[batch]`, -1 for unknown users.

        Returns:
            Candidate positions int32 `[batch, most per user]`, padded with the number of
            candidates.
        """
        unknown = tf.cast(self.num_rows, tf.int64)
        users = tf.where(user_positions < 0, unknown, user_positions)
        return self.columns(users).to_tensor(default_value=self._padding)
