"""The default model: two towers trained on all interactions of a user at once.

The interactions of a user share one query, so the scores of the corpus are computed once
for all of them: some hundred times cheaper than once per interaction, and as exact.
Queries and candidates have unit length; their cosine over a temperature is the logit.
A user's own candidates are no negatives to each other: each of them competes with what
the user has not touched, as it will when recommendations are made.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from export._tf import tf
from export.config import ModelConfig, TrainConfig
from export.data.dataset import Dataset
from export.features import CandidateFeatures
from export.history import UserHistories

__all__ = ["UserSoftmaxModel", "sample_size"]

_INITIAL_SCALE = 0.05
# Scores of a batch of users with the whole corpus: 256 MB, and as much for gradients.
_MOST_SCORES = 64_000_000
_SMALLEST_SAMPLE = 1024
_EMBED_BATCH = 65_536
_EXCLUDED = -1e9


def sample_size(num_candidates: int, batch_size: int, wanted: int | None) -> int | None:
    """How many negatives to draw per batch; None where all of the corpus fits in memory."""
    if wanted is not None:
        return min(wanted, num_candidates)
    if num_candidates * batch_size <= _MOST_SCORES:
        return None
    return min(max(_MOST_SCORES // (4 * batch_size), _SMALLEST_SAMPLE), num_candidates)


class UserSoftmaxModel(tf.Module):
    """Query tower and candidate tower, and their loss on a batch of users."""

    def __init__(
        self,
        dataset: Dataset,
        histories: UserHistories,
        model_config: ModelConfig,
        config: TrainConfig,
        *,
        random: Any = None,
    ) -> None:
        """Draws the initial values.

        Args:
            dataset: The interactions.
            histories: Those that are trained on.
            model_config: Shape of the towers.
            config: How they are trained.
            random: Generator of initial values and samples; None for one by the seed.
        """
        super().__init__()
        self._histories = histories
        self._temperature = model_config.temperature
        self._activity_power = config.activity_power
        self._random = random or tf.random.Generator.from_seed(config.seed)
        self._num_candidates = len(dataset.candidate_ids)
        self._sampled = sample_size(
            self._num_candidates, config.batch_size, config.sampled_candidates
        )
        shape = [len(dataset.user_ids), model_config.embedding_dim]
        self._users = self._table("users", shape)
        self._candidates = self._table("candidates", [self._num_candidates, shape[1]])
        self._features: CandidateFeatures | None = None
        if model_config.candidate_features and dataset.attributes:
            self._features = CandidateFeatures(dataset)
            width = len(self._features.names)
            self._weights = tf.Variable(tf.zeros([width, shape[1]]), name="features")
        if self._sampled is not None:
            # Half of the draws by popularity, for strong negatives; half from everywhere.
            counts = histories.candidate_counts.astype(np.float64)
            chances = 0.5 * counts / counts.sum() + 0.5 / self._num_candidates
            self._chances = tf.constant(chances, tf.float32)
            self._cumulative = tf.constant(np.cumsum(chances))

    def _table(self, name: str, shape: list[int]) -> Any:
        return tf.Variable(self._random.normal(shape, stddev=_INITIAL_SCALE), name=name)

    @property
    def is_sampled(self) -> bool:
        """Whether a batch meets a sample of the corpus rather than all of it."""
        return self._sampled is not None

    def state(self) -> list[tf.Variable]:
        """All that a training step changes."""
        return [*self.trainable_variables, self._random.state]

    def embed_users(self, users: tf.Tensor) -> tf.Tensor:
        """Query embeddings float32 `[batch, d]` of positions int32 `[batch]`."""
        return tf.math.l2_normalize(tf.gather(self._users, users), axis=1)

    def embed_candidates(self, candidates: tf.Tensor | None = None) -> tf.Tensor:
        """Candidate embeddings float32 `[n, d]` of positions int32 `[n]`; None means all."""
        table = self._candidates
        rows = tf.identity(table) if candidates is None else tf.gather(table, candidates)
        if self._features is not None:
            rows = rows + self._features.project(self._weights, candidates)
        return tf.math.l2_normalize(rows, axis=1)

    def loss(self, users: tf.Tensor, total: tf.Tensor | None = None) -> tf.Tensor:
        """Mean loss per user of a batch, weighted by a power of their activity.

        Of one interaction: -log(exp(s) / (exp(s) + sum of exp over the candidates that
        the user has not)), where s is the cosine over the temperature.

        Args:
            users: Int32 `[batch]`, positions.
            total: Sum of the weights of the whole batch, where `users` are a part of it; the
                parts' losses then add up to the batch's.
        """
        rows, own = self._histories.entries(users)
        queries = self.embed_users(users)
        if self._sampled is None:
            positive, negative = self._scores_of_all(queries, rows, own)
        else:
            positive, negative = self._scores_of_sample(queries, rows, own)
        losses = tf.math.softplus(tf.gather(negative, rows) - positive)
        counts = tf.math.segment_sum(tf.ones_like(losses), rows)
        weights = counts**self._activity_power
        means = tf.math.segment_sum(losses, rows) / counts
        total = tf.reduce_sum(weights) if total is None else total
        return tf.reduce_sum(weights * means) / total

    def _scores_of_all(
        self, queries: tf.Tensor, rows: tf.Tensor, own: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits of each own candidate `[m]`; log of the sum over the others `[batch]`."""
        scores = tf.matmul(queries, self.embed_candidates(), transpose_b=True)
        scores /= self._temperature
        places = tf.stack([rows, tf.cast(own, tf.int64)], axis=1)
        positive = tf.gather_nd(scores, places)
        excluded = tf.fill(tf.shape(rows), _EXCLUDED)
        others = tf.tensor_scatter_nd_add(scores, places, excluded)
        return positive, tf.reduce_logsumexp(others, axis=1)

    def _scores_of_sample(
        self, queries: tf.Tensor, rows: tf.Tensor, own: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same, the sum estimated from a sample with logQ correction."""
        draws = self._random.uniform([self._sampled], dtype=tf.float64)
        drawn = tf.searchsorted(self._cumulative, draws * self._cumulative[-1], side="right")
        drawn = tf.minimum(drawn, self._num_candidates - 1)
        distinct, _, counts = tf.unique_with_counts(drawn)
        # Each draw stands for 1 / (sample size * chance) candidates.
        expected = tf.gather(self._chances, distinct) * tf.cast(self._sampled, tf.float32)
        correction = tf.math.log(tf.cast(counts, tf.float32) / expected)
        scores = tf.matmul(queries, self.embed_candidates(distinct), transpose_b=True)
        others = scores / self._temperature + correction
        # Accidental hits: what the user has is no negative.
        slots = tf.tensor_scatter_nd_update(
            tf.fill([self._num_candidates], -1),
            distinct[:, None],
            tf.range(tf.size(distinct)),
        )
        slot = tf.gather(slots, own)
        hit = slot >= 0
        places = tf.stack(
            [tf.boolean_mask(rows, hit), tf.cast(tf.boolean_mask(slot, hit), tf.int64)], axis=1
        )
        excluded = tf.fill(tf.shape(places)[:1], _EXCLUDED)
        others = tf.tensor_scatter_nd_add(others, places, excluded)
        mine, index = tf.unique(own)
        products = tf.gather(queries, rows) * tf.gather(self.embed_candidates(mine), index)
        return tf.reduce_sum(products, axis=1) / self._temperature, tf.reduce_logsumexp(
            others, axis=1
        )

    def query_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_users, d]`, in the data set's order of users."""
        parts = [
            tf.math.l2_normalize(self._users[start : start + _EMBED_BATCH], axis=1).numpy()
            for start in range(0, self._users.shape[0], _EMBED_BATCH)
        ]
        return np.concatenate(parts)

    def candidate_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_candidates, d]`, in the data set's order of candidates."""
        parts = [
            self.embed_candidates(
                tf.range(start, min(start + _EMBED_BATCH, self._num_candidates))
            ).numpy()
            for start in range(0, self._num_candidates, _EMBED_BATCH)
        ]
        return np.concatenate(parts)
