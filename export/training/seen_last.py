"""A second stage of training: towers that rank last what a user already has.

An embedding per user learns by heart what it was trained on, and ranks that first. Lists
that are shown as they are, without `exclude_seen`, should begin with what is new instead.
So the towers go on from where the first stage left them and learn its probabilities over
what a user has *not*; what a user has counts as a probability of zero.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import TrainConfig
from shortlist.export.towers.pair import TowerPair
from shortlist.export.training.history import UserHistories
from shortlist.export.training.user_scores import UserScores

__all__ = ["SeenLastModel"]

Table = npt.NDArray[np.float32]


class SeenLastModel(tf.Module):
    """Towers that learn from a teacher, which stays as it is."""

    def __init__(
        self,
        histories: UserHistories,
        query: Table,
        candidate: Table,
        config: TrainConfig,
        *,
        random: Any = None,
    ) -> None:
        """Starts where the teacher is.

        Args:
            histories: What each user has.
            query: `[num_users, d]`, the teacher's query embeddings.
            candidate: `[num_candidates, d]`, its candidate embeddings; the inner product
                of both is the logit.
            config: Of the training.
            random: Generator of samples; None for one by the seed.
        """
        super().__init__()
        self._activity_power = config.activity_power
        self._random = random or tf.random.Generator.from_seed(config.seed)
        self._towers = TowerPair.of_tables(query, candidate, name="seen_last")
        self._teacher = TowerPair.of_tables(query, candidate, name="teacher", trainable=False)
        self._scores = UserScores(
            histories,
            self._random,
            batch_size=config.batch_size,
            sampled=config.sampled_candidates,
        )

    @property
    def is_sampled(self) -> bool:
        """Whether a batch meets a sample of the corpus rather than all of it."""
        return self._scores.is_sampled

    def state(self) -> list[tf.Variable]:
        """All that a training step changes, and the teacher."""
        return [*self._towers.variables, *self._teacher.variables, self._random.state]

    def loss(self, users: tf.Tensor, total: tf.Tensor | None = None) -> tf.Tensor:
        """Cross entropy of the towers' softmax over the corpus with the teacher's.

        The teacher's is over what the user has not. Users count by a power of their
        number of interactions.

        Args:
            users: Int32 `[batch]`, positions.
            total: Sum of the weights of the whole batch, where `users` are a part of it; the
                parts' losses then add up to the batch's.
        """
        batch = self._scores.batch(users)
        taught = self._scores.logits(self._teacher, self._teacher.embed_users(users), batch)[1]
        targets = tf.stop_gradient(tf.nn.softmax(taught))
        own, others = self._scores.logits(self._towers, self._towers.embed_users(users), batch)
        seen = _log_sum_by_row(own, batch.rows)
        everything = tf.reduce_logsumexp(
            tf.stack([tf.reduce_logsumexp(others, axis=1), seen], axis=1), axis=1
        )
        losses = everything - tf.reduce_sum(targets * others, axis=1)
        weights = batch.counts**self._activity_power
        total = tf.reduce_sum(weights) if total is None else total
        return tf.reduce_sum(weights * losses) / total

    def query_embeddings(self) -> Table:
        """Float32 `[num_users, d]`, in the data set's order of users."""
        return self._towers.tables()[0]

    def candidate_embeddings(self) -> Table:
        """Float32 `[num_candidates, d]`, in the data set's order of candidates."""
        return self._towers.tables()[1]


def _log_sum_by_row(values: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Log of the sum of exp by row; each row has a value."""
    most = tf.stop_gradient(tf.math.segment_max(values, rows))
    return most + tf.math.log(tf.math.segment_sum(tf.exp(values - tf.gather(most, rows)), rows))
