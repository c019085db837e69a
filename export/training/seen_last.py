"""A second stage of training: towers that rank a user's own candidates last.

An embedding per user memorises the interactions it was trained on, and ranks them first.
Lists that are shown without `exclude_seen` should begin with new candidates instead. So the
second stage starts from the towers of the first and learns their probabilities over the
candidates that a user does *not* have; the user's own candidates get a probability of zero.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import TrainConfig
from shortlist.export.towers.tower_pair import TowerPair
from shortlist.export.training.user_scores import UserHistories, UserScores

__all__ = ["SeenLastModel"]

Table = npt.NDArray[np.float32]


class SeenLastModel(tf.Module):
    """Towers that learn from a fixed teacher.

    Attributes:
        scores: Logits of a batch of users.
    """

    def __init__(
        self,
        histories: UserHistories,
        query: Table,
        candidate: Table,
        config: TrainConfig,
        *,
        random: Any = None,
    ) -> None:
        """Start from the teacher's tables.

        Args:
            histories: Candidates of each user.
            query: `[num_users, d]`, query embeddings of the teacher.
            candidate: `[num_candidates, d]`, its candidate embeddings; the inner product of
                both is the logit.
            config: Training configuration.
            random: Generator of samples; None for one from the seed.
        """
        super().__init__()
        self._activity_power = config.activity_power
        self._random = random or tf.random.Generator.from_seed(config.seed)
        self._towers = TowerPair.of_tables(query, candidate, name="seen_last")
        self._teacher = TowerPair.of_tables(query, candidate, name="teacher", trainable=False)
        self.scores = UserScores(
            histories,
            self._random,
            batch_size=config.batch_size,
            sampled=config.sampled_candidates,
        )

    def state(self) -> list[tf.Variable]:
        """Variables that a training step changes, and those of the teacher."""
        return [*self._towers.variables, *self._teacher.variables, self._random.state]

    def loss(self, users: tf.Tensor, total: tf.Tensor | None = None) -> tf.Tensor:
        """Cross entropy between the teacher's softmax and that of the towers.

        The teacher's softmax is over the candidates that the user does not have, that of the
        towers over the whole corpus. Users are weighted by a power of their number of
        interactions.

        Args:
            users: Int32 `[batch]`, positions.
            total: Sum of the weights of the whole batch if `users` are only a part of it; the
                losses of the parts then add up to that of the batch.
        """
        batch = self.scores.batch(users)
        taught = self.scores.logits(self._teacher, self._teacher.embed_users(users), batch)[1]
        targets = tf.stop_gradient(tf.nn.softmax(taught))
        own, others = self.scores.logits(self._towers, self._towers.embed_users(users), batch)
        seen = _log_sum_by_row(own, batch.rows)
        total_mass = tf.reduce_logsumexp(
            tf.stack([tf.reduce_logsumexp(others, axis=1), seen], axis=1), axis=1
        )
        losses = total_mass - tf.reduce_sum(targets * others, axis=1)
        weights = batch.counts**self._activity_power
        total = tf.reduce_sum(weights) if total is None else total
        return tf.reduce_sum(weights * losses) / total

    def query_embeddings(self) -> Table:
        """Float32 `[num_users, d]`, in the order of the data set."""
        return self._towers.tables()[0]

    def candidate_embeddings(self) -> Table:
        """Float32 `[num_candidates, d]`, in the order of the data set."""
        return self._towers.tables()[1]


def _log_sum_by_row(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Logarithm of the sum of exp per row; every row has a value."""
    most = tf.stop_gradient(tf.math.segment_max(values, rows))
    return most + tf.math.log(tf.math.segment_sum(tf.exp(values - tf.gather(most, rows)), rows))
