"""Logits of a batch of users, for their own candidates and for the competing ones."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.pairs import Pairs
from shortlist.export.towers.pair_table import PairTable
from shortlist.export.towers.tower_pair import TowerPair

__all__ = ["Batch", "CandidateSample", "UserHistories", "UserScores", "sample_size"]

# Scores of a batch of users with the whole corpus: 256 MB, and as much for gradients.
_MOST_SCORES = 64_000_000
_SMALLEST_SAMPLE = 1024
_EXCLUDED = -1e9


def sample_size(num_candidates: int, batch_size: int, configured: int | None) -> int | None:
    """Number of negatives to draw per batch; None if the scores of the whole corpus fit in memory.

    Args:
        num_candidates: Size of the corpus.
        batch_size: Users per batch.
        configured: Number that the configuration asks for, if any.
    """
    if configured is not None:
        return min(configured, num_candidates)
    if num_candidates * batch_size <= _MOST_SCORES:
        return None
    return min(max(_MOST_SCORES // (4 * batch_size), _SMALLEST_SAMPLE), num_candidates)


class CandidateSample(tf.Module):
    """Draws negatives: half by popularity, for strong ones; the other half uniformly."""

    def __init__(self, counts: npt.NDArray[np.int64], size: int) -> None:
        """Prepare the chances.

        Args:
            counts: `[num_candidates]`, interactions of each candidate.
            size: Number of draws.
        """
        super().__init__()
        chances = 0.5 * counts / counts.sum() + 0.5 / len(counts)
        self.size = size
        self._last = len(counts) - 1
        self._chances = tf.constant(chances, tf.float32)
        self._cumulative = tf.constant(np.cumsum(chances))

    def draw(self, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return distinct candidates int32 `[n]`, and their logQ corrections float32 `[n]`.

        Args:
            numbers: Float64 `[size]`, uniform random numbers in [0, 1).
        """
        drawn = tf.searchsorted(self._cumulative, numbers * self._cumulative[-1], side="right")
        drawn = tf.minimum(drawn, self._last)
        distinct, _, counts = tf.unique_with_counts(drawn)
        # Each draw stands for 1 / (sample size * chance) candidates.
        expected = tf.gather(self._chances, distinct) * float(self.size)
        return distinct, tf.math.log(tf.cast(counts, tf.float32) / expected)


class UserHistories(tf.Module):
    """Candidates of each user to train on: four bytes per interaction.

    Some rows may be windows of a user's events, which count as further users.

    Attributes:
        pairs: A row per user, with the candidates.
        active: int32 `[num_active]`, positions of the users who have any.
        counts: int64 `[num_users]`, interactions of each user.
        candidate_counts: int64 `[num_candidates]`, interactions of each candidate.
    """

    def __init__(self, pairs: Pairs, num_candidates: int) -> None:
        super().__init__()
        self.pairs = pairs
        self.counts = pairs.counts
        self.active = np.flatnonzero(self.counts).astype(np.int32)
        self.candidate_counts = np.bincount(pairs.columns, minlength=num_candidates)
        self._table = PairTable(pairs)
        self._weights = None
        if pairs.weights is not None:
            self._weights = tf.Variable(_relative(pairs, pairs.weights), trainable=False)

    def entries(self, users: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """All interactions of some users.

        Args:
            users: Int32 `[batch]`.

        Returns:
            Rows int64 `[m]`, in 0..batch-1 and ascending, candidates int32 `[m]`, and weights
            float32 `[m]`, relative to the mean of the row; None if all weights are 1.
        """
        entries = self._table.entries(users)
        places, weights = entries.flat_values, None
        if self._weights is not None:
            weights = tf.gather(self._weights, places)
        return entries.value_rowids(), self._table.at(places), weights


def _relative(pairs: Pairs, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the weights of pairs relative to the mean of their row."""
    counts = pairs.counts
    rows = np.repeat(np.arange(pairs.num_rows), counts)
    means = np.bincount(rows, weights, pairs.num_rows) / np.maximum(counts, 1)
    return (weights / means[rows]).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Some users, their own candidates, and the candidates that compete with those.

    Attributes:
        rows: int64 `[m]`, in 0..batch-1 and ascending: the user of each entry of `own`.
        own: int32 `[m]`, candidates of the users.
        distinct: int32 `[k]`, `own` without repetitions.
        index: int32 `[m]`, position of each entry of `own` in `distinct`.
        counts: float32 `[batch]`, number of candidates of each user.
        drawn: int32 `[n]`, distinct candidates of a sample; None for the whole corpus.
        correction: float32 `[n]`, logQ corrections of `drawn`.
        weights: float32 `[m]`, weight of each entry of `own` relative to the mean of the user's;
            None if all are 1.
        places: int64 `[p, 2]`, rows and columns of the scores that belong to a user's own
            candidates.
    """

    rows: tf.Tensor
    own: tf.Tensor
    distinct: tf.Tensor
    index: tf.Tensor
    counts: tf.Tensor
    drawn: tf.Tensor | None
    correction: tf.Tensor | None
    weights: tf.Tensor | None
    places: tf.Tensor


class UserScores(tf.Module):
    """Scores users against the whole corpus, or against a sample if the corpus is too large."""

    def __init__(
        self,
        histories: UserHistories,
        random: "tf.random.Generator",
        *,
        batch_size: int,
        sampled: int | None,
    ) -> None:
        """Choose the size of the sample.

        Args:
            histories: Candidates of each user.
            random: Source of the samples.
            batch_size: Users per batch, at most.
            sampled: Size of a sample; None to choose it by the size of the corpus.
        """
        super().__init__()
        self._histories = histories
        self._random = random
        self._num_candidates = len(histories.candidate_counts)
        size = sample_size(self._num_candidates, batch_size, sampled)
        self._sample = (
            CandidateSample(histories.candidate_counts, size) if size is not None else None
        )

    @property
    def is_sampled(self) -> bool:
        """Return whether a batch is scored against a sample of the corpus."""
        return self._sample is not None

    def batch(self, users: tf.Tensor) -> Batch:
        """Return users int32 `[batch]` with their candidates and, if needed, a new sample."""
        rows, own, weights = self._histories.entries(users)
        distinct, index = tf.unique(own)
        drawn = correction = None
        places = tf.stack([rows, tf.cast(own, tf.int64)], axis=1)
        if self._sample is not None:
            numbers = self._random.uniform([self._sample.size], dtype=tf.float64)
            drawn, correction = self._sample.draw(numbers)
            # A user's own candidates are not negatives, even if drawn by accident.
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
            distinct=distinct,
            index=index,
            counts=tf.math.segment_sum(tf.ones_like(own, tf.float32), rows),
            drawn=drawn,
            correction=correction,
            weights=weights,
            places=places,
        )

    def logits(
        self, pair: TowerPair, queries: tf.Tensor, batch: Batch
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits of a batch.

        Args:
            pair: Towers that score.
            queries: Float32 `[batch, d]`, query embeddings by the same pair.
            batch: Users of these queries.

        Returns:
            Logits float32 `[m]` of `batch.own`, and `[batch, n]` of the corpus or of the
            corrected sample, close to minus infinity for a user's own candidates.
        """
        candidates = pair.embed_candidates(batch.drawn)
        scores = tf.matmul(queries, candidates, transpose_b=True)
        if batch.drawn is None:
            own = tf.gather_nd(scores, batch.places)
        else:
            embeddings = tf.gather(pair.embed_candidates(batch.distinct), batch.index)
            own = tf.reduce_sum(tf.gather(queries, batch.rows) * embeddings, axis=1)
            scores += batch.correction
        excluded = tf.fill(tf.shape(batch.places)[:1], _EXCLUDED)
        return own, tf.tensor_scatter_nd_add(scores, batch.places, excluded)
