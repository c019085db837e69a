"""Logits of a batch of users: of what they have, and of what that competes with."""

from dataclasses import dataclass

import numpy as np

from shortlist.export._tf import tf
from shortlist.export.towers.pair import TowerPair
from shortlist.export.training.history import UserHistories

__all__ = ["Batch", "UserScores", "sample_size"]

# Scores of a batch of users with the whole corpus: 256 MB, and as much for gradients.
_MOST_SCORES = 64_000_000
_SMALLEST_SAMPLE = 1024
_EXCLUDED = -1e9


def sample_size(num_candidates: int, batch_size: int, wanted: int | None) -> int | None:
    """How many negatives to draw per batch; None where all of the corpus fits in memory."""
    if wanted is not None:
        return min(wanted, num_candidates)
    if num_candidates * batch_size <= _MOST_SCORES:
        return None
    return min(max(_MOST_SCORES // (4 * batch_size), _SMALLEST_SAMPLE), num_candidates)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Some users, what they have, and what it competes with.

    Attributes:
        rows: int64 `[m]`, in 0..batch-1 and ascending: whose each of `own` is.
        own: int32 `[m]`, candidates that the users have.
        mine: int32 `[k]`, `own` without repetitions.
        index: int32 `[m]`, where each of `own` is in `mine`.
        counts: float32 `[batch]`, how many candidates the users have.
        drawn: Distinct candidates int64 `[n]` of a sample, None for the whole corpus.
        correction: float32 `[n]`, logQ corrections of `drawn`.
        places: int64 `[p, 2]`, rows and columns where what a user is scored against is the
            user's own.
    """

    rows: tf.Tensor
    own: tf.Tensor
    mine: tf.Tensor
    index: tf.Tensor
    counts: tf.Tensor
    drawn: tf.Tensor | None
    correction: tf.Tensor | None
    places: tf.Tensor


class UserScores(tf.Module):
    """Scores users against the whole corpus, or against a sample where that is too large."""

    def __init__(
        self,
        histories: UserHistories,
        random: "tf.random.Generator",
        *,
        batch_size: int,
        sampled: int | None,
    ) -> None:
        """Takes note.

        Args:
            histories: What each user has.
            random: Draws the samples.
            batch_size: Users at a time, at most.
            sampled: Size of a sample; None to choose by the corpus size.
        """
        super().__init__()
        self._histories = histories
        self._random = random
        self._num_candidates = len(histories.candidate_counts)
        self._sampled = sample_size(self._num_candidates, batch_size, sampled)
        if self._sampled is not None:
            # Half of the draws by popularity, for strong negatives; half from everywhere.
            counts = histories.candidate_counts.astype(np.float64)
            chances = 0.5 * counts / counts.sum() + 0.5 / self._num_candidates
            self._chances = tf.constant(chances, tf.float32)
            self._cumulative = tf.constant(np.cumsum(chances))

    @property
    def is_sampled(self) -> bool:
        """Whether a batch meets a sample of the corpus rather than all of it."""
        return self._sampled is not None

    def batch(self, users: tf.Tensor) -> Batch:
        """Users int32 `[batch]` with what they have and, where needed, a new sample."""
        rows, own = self._histories.entries(users)
        mine, index = tf.unique(own)
        drawn = correction = None
        places = tf.stack([rows, tf.cast(own, tf.int64)], axis=1)
        if self._sampled is not None:
            drawn, correction = self._draw()
            # Accidental hits: what the user has is no negative.
            slots = tf.tensor_scatter_nd_update(
                tf.fill([self._num_candidates], tf.constant(-1, tf.int64)),
                drawn[:, None],
                tf.range(tf.size(drawn, tf.int64)),
            )
            columns = tf.gather(slots, own)
            places = tf.boolean_mask(tf.stack([rows, columns], axis=1), columns >= 0)
        return Batch(
            rows=rows,
            own=own,
            mine=mine,
            index=index,
            counts=tf.math.segment_sum(tf.ones_like(own, tf.float32), rows),
            drawn=drawn,
            correction=correction,
            places=places,
        )

    def _draw(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Distinct candidates of a sample, and their logQ corrections."""
        draws = self._random.uniform([self._sampled], dtype=tf.float64)
        drawn = tf.searchsorted(self._cumulative, draws * self._cumulative[-1], side="right")
        drawn = tf.minimum(drawn, self._num_candidates - 1)
        distinct, _, counts = tf.unique_with_counts(drawn)
        # Each draw stands for 1 / (sample size * chance) candidates.
        expected = tf.gather(self._chances, distinct) * tf.cast(self._sampled, tf.float32)
        return distinct, tf.math.log(tf.cast(counts, tf.float32) / expected)

    def logits(
        self, pair: TowerPair, queries: tf.Tensor, batch: Batch
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What a batch scores.

        Args:
            pair: Its candidate tower is asked.
            queries: Float32 `[batch, d]`, of the same pair.
            batch: Whose queries they are.

        Returns:
            Logits float32 `[m]` of `batch.own`, and `[batch, n]` of the corpus or the
            corrected sample, next to minus infinity where a user has the candidate.
        """
        candidates = pair.embed_candidates(batch.drawn)
        scores = tf.matmul(queries, candidates, transpose_b=True)
        if batch.drawn is None:
            own = tf.gather_nd(scores, batch.places)
        else:
            mine = tf.gather(pair.embed_candidates(batch.mine), batch.index)
            own = tf.reduce_sum(tf.gather(queries, batch.rows) * mine, axis=1)
            scores += batch.correction
        excluded = tf.fill(tf.shape(batch.places)[:1], _EXCLUDED)
        return own, tf.tensor_scatter_nd_add(scores, batch.places, excluded)
