"""The default model: towers trained on all interactions of a user at once.

All interactions of a user share one query, so the corpus is scored once per user: about
100x cheaper than once per interaction, and just as exact. A user's own candidates are not
negatives for each other. Each competes with the candidates that the user does not have, as in
recommendations.

Half of the dimensions are a pair of towers whose logit is a cosine over a temperature, the
other half a pair whose logit is a plain inner product, shrunk by a penalty. Each pair has its
own loss. The weighted sum of their logits, which is the inner product of their concatenated
embeddings, ranks better than either alone, because their errors differ.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.towers.features import CandidateFeatures
from shortlist.export.towers.tower_pair import TowerPair
from shortlist.export.training.user_scores import Batch, UserHistories, UserScores

__all__ = ["UserSoftmaxModel", "pair_dimensions"]

_EMBED_BATCH = 65_536


class UserSoftmaxModel(tf.Module):
    """Query and candidate towers with their loss on a batch of users.

    Attributes:
        scores: Logits of a batch of users.
        feature_names: Names of the candidates' features.
    """

    def __init__(
        self,
        dataset: Dataset,
        histories: UserHistories,
        model_config: ModelConfig,
        config: TrainConfig,
        *,
        random: Any = None,
    ) -> None:
        """Draw the initial values.

        Args:
            dataset: Interactions and candidates.
            histories: Interactions to train on.
            model_config: Shape of the towers.
            config: Training configuration.
            random: Generator of initial values and samples; None for one from the seed.
        """
        super().__init__()
        self._activity_power = config.activity_power
        self._penalty = config.norm_penalty
        self._weight = model_config.inner_product_weight
        self._dimension = model_config.embedding_dim
        self._widths = [width for _, width, _ in _pairs(model_config)]
        self._random = random or tf.random.Generator.from_seed(config.seed)
        self._num_users = histories.pairs.num_rows
        self._num_active = max(len(histories.active), 1)
        self._num_candidates = len(dataset.candidate_ids)
        features: CandidateFeatures | None = None
        if model_config.candidate_features and (dataset.attributes or dataset.words):
            features = CandidateFeatures(dataset)
        self.feature_names = [] if features is None else list(features.names)
        self._pairs = [
            TowerPair.random(
                (self._num_users, self._num_candidates, dimensions),
                self._random,
                features,
                temperature=temperature,
                name=name,
            )
            for name, dimensions, temperature in _pairs(model_config)
        ]
        self.scores = UserScores(
            histories,
            self._random,
            batch_size=config.batch_size,
            sampled=config.sampled_candidates,
        )

    def state(self) -> list[tf.Variable]:
        """Variables that a training step changes."""
        return [*self.trainable_variables, self._random.state]

    def loss(self, users: tf.Tensor, total: tf.Tensor | None = None) -> tf.Tensor:
        """Loss of a batch: the losses of both pairs plus the penalty on inner products.

        The loss of one interaction and pair is -log(exp(s) / (exp(s) + sum of exp over the
        candidates that the user does not have)), where s is the logit. The mean over a user's
        interactions, by their weights, is weighted by a power of their number. The penalty is a
        factor times half of two terms: the squared lengths of the queries, as a mean with the
        same weights, and those of all candidates, as a sum divided by the number of users. Over
        an epoch, each row of a table counts once.

        Args:
            users: Int32 `[batch]`, positions.
            total: Sum of the weights of the whole batch if `users` are only a part of it; the
                losses of the parts then add up to that of the batch.
        """
        batch = self.scores.batch(users)
        weights = batch.counts**self._activity_power
        part = tf.reduce_sum(weights)
        total = part if total is None else total
        shares = tf.gather(weights / batch.counts, batch.rows) / total
        if batch.weights is not None:
            shares *= batch.weights
        loss = tf.constant(0.0)
        for pair in self._pairs:
            queries = pair.embed_users(users)
            own, others = self.scores.logits(pair, queries, batch)
            against = tf.gather(tf.reduce_logsumexp(others, axis=1), batch.rows)
            loss += tf.reduce_sum(shares * tf.math.softplus(against - own))
            if pair.temperature is None and self._penalty:
                squares = self._squares(pair, queries, batch, weights)
                loss += self._penalty * squares * (part / total)
        return loss

    def _squares(
        self, pair: TowerPair, queries: tf.Tensor, batch: Batch, weights: tf.Tensor
    ) -> tf.Tensor:
        of_users = tf.reduce_sum(weights * tf.reduce_sum(queries**2, axis=1))
        of_candidates = pair.own_squares(batch.drawn)
        if batch.correction is not None:  # each sampled row stands for several
            of_candidates *= tf.exp(batch.correction)
        mean = of_users / tf.reduce_sum(weights)
        return 0.5 * (mean + tf.reduce_sum(of_candidates) / self._num_active)

    def set_queries(self, rows: npt.NDArray[np.int64], queries: npt.NDArray[np.float32]) -> None:
        """Set rows of `query_embeddings`, `[n, d]`, but for the lengths of cosines."""
        end = 0
        for pair, width in zip(self._pairs, self._widths, strict=True):
            own, end = queries[:, end : end + width], end + width
            pair.set_queries(rows, own / (self._weight if pair.temperature is None else 1.0))

    def query_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_users, d]`, in the order of the histories."""

        def embed(pair: TowerPair, rows: tf.Tensor) -> tf.Tensor:
            return pair.embed_users(rows) * (self._weight if pair.temperature is None else 1.0)

        return self._in_parts(self._num_users, embed)

    def candidate_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_candidates, d]`, in the order of the data set."""
        return self._in_parts(self._num_candidates, lambda pair, rows: pair.embed_candidates(rows))

    def _in_parts(
        self, size: int, embed: Callable[[TowerPair, tf.Tensor], tf.Tensor]
    ) -> npt.NDArray[np.float32]:
        """Concatenated embeddings of all pairs, without a second copy of the tables."""
        whole = np.empty((size, self._dimension), np.float32)
        for start in range(0, size, _EMBED_BATCH):
            stop = min(start + _EMBED_BATCH, size)
            rows = tf.range(start, stop)
            whole[start:stop] = tf.concat([embed(pair, rows) for pair in self._pairs], axis=1)
        return whole


def pair_dimensions(config: ModelConfig) -> tuple[int, int]:
    """Number of dimensions for the cosines, and for the inner products."""
    plain = config.embedding_dim // 2 if config.inner_product_weight else 0
    return config.embedding_dim - plain, plain


def _pairs(config: ModelConfig) -> list[tuple[str, int, float | None]]:
    """Name, dimensions and temperature of each pair of towers."""
    cosine, plain = pair_dimensions(config)
    pairs: list[tuple[str, int, float | None]] = [("cosine", cosine, config.temperature)]
    return [*pairs, ("inner_product", plain, None)] if plain else pairs
