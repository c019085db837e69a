"""Steps of a training on batches of users, or of windows of their events."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.progress import Progress
from shortlist.export.training.checkpoint import Checkpoint
from shortlist.export.training.loop import TrainingLoop
from shortlist.export.training.optimizers import make_optimizer
from shortlist.export.training.query.taste import expected_queries
from shortlist.export.training.query.windows import WINDOW, window_counts
from shortlist.export.training.seen_last import SeenLastModel
from shortlist.export.training.states.state import (
    Rows,
    State,
    carry_variables,
    matched_columns,
    named_arrays,
)
from shortlist.export.training.user_scores import UserHistories
from shortlist.export.training.user_softmax import UserSoftmaxModel
from shortlist.export.training.workers import Workers, alone

__all__ = ["UserSteps", "rescale"]

Table = npt.NDArray[np.float32]
Model = UserSoftmaxModel | SeenLastModel


def rescale(queries: Table, candidates: Table, cosines: int) -> None:
    """Rescale both tables in place without changing their inner products.

    Candidates get length 1 in the dimensions of the cosines and 0.5 on average in the others,
    so that cosines dominate when candidates are compared with each other.
    """
    for part, target in ((slice(0, cosines), 1.0), (slice(cosines, None), 0.5)):
        squares = np.einsum("nd,nd->n", candidates[:, part], candidates[:, part])
        length = float(np.sqrt(squares.mean(dtype=np.float64)))
        if length > 0:
            candidates[:, part] *= np.float32(target / length)
            queries[:, part] *= np.float32(length / target)


class UserSteps:
    """Trains a model on a part of the interactions.

    Attributes:
        config: Training configuration.
        histories: This part, by user.
        model: Model to train.
    """

    def __init__(
        self,
        make: Callable[..., Model],
        histories: UserHistories,
        config: TrainConfig,
        workers: Workers | None = None,
    ) -> None:
        """Create the model and its optimizer.

        Args:
            make: Creates the model; takes a keyword argument `random`, the generator.
            histories: Interactions to train on.
            config: Training configuration.
            workers: Processes that share the batches; None for this one alone.
        """
        self._workers = workers or alone()
        self.config = config
        self.histories = histories
        # Created outside of the strategy, so that all workers draw the same numbers.
        random = tf.random.Generator.from_seed(config.seed)
        with self._workers.strategy.scope():
            self.model = make(random=random)
            self._optimizer = make_optimizer(
                config.optimizer, config.learning_rate, lazy=self.model.scores.is_sampled
            )
            # By default created at the first step, but a checkpoint needs them earlier.
            self._optimizer._create_all_weights(self.model.trainable_variables)
        self._step = self._make_step()

    @classmethod
    def of_data(
        cls,
        dataset: Dataset,
        pairs: Pairs,
        model_config: ModelConfig,
        config: TrainConfig,
        workers: Workers | None = None,
    ) -> "UserSteps":
        """Create the steps of a new model on rows of candidates: users, then windows."""
        histories = UserHistories(pairs, len(dataset.candidate_ids))
        make = partial(UserSoftmaxModel, dataset, histories, model_config, config)
        return cls(make, histories, config, workers)

    def save(self, state: State, dataset: Dataset) -> None:
        """Write the taste's part of a training state; a row per user, then per window."""
        assert isinstance(self.model, UserSoftmaxModel)
        windows = self._windows(len(dataset.user_ids))
        meta = {
            "users": dataset.user_ids,
            "candidates": dataset.candidate_ids,
            "features": self.model.feature_names,
        }
        variables = named_arrays(self.model.trainable_variables, self._optimizer)
        state.save(meta, itertools.chain([("windows", windows)], variables))

    def carry(self, state: State, dataset: Dataset) -> None:
        """Start from the taste's part of a training state.

        Users, candidates and features are matched by name. Queries of new users, and of those
        whose number of windows has changed, are those that their events let expect.

        Raises:
            WarmStartError: It cannot be read.
        """
        assert isinstance(self.model, UserSoftmaxModel)
        with state.opened() as part:
            users = Rows.matched(part.meta["users"], dataset.user_ids)
            windows = self._windows(len(dataset.user_ids))
            rows = _with_windows(users, part.array("windows"), windows)
            tables = {
                "users": rows,
                "candidates": Rows.matched(part.meta["candidates"], dataset.candidate_ids),
                "features": matched_columns(part.meta["features"], self.model.feature_names),
            }
            carry_variables(part, self.model.trainable_variables, self._optimizer, tables)
        pairs = self.histories.pairs
        new = rows.others(pairs.num_rows)
        if len(new) and len(new) < pairs.num_rows:
            queries = self.model.query_embeddings()
            candidates = self.model.candidate_embeddings()
            self.model.set_queries(new, expected_queries(queries, candidates, pairs, new))

    def _windows(self, num_users: int) -> npt.NDArray[np.int64]:
        """Return the number of windows of each user; they follow the users in this order."""
        pairs = self.histories.pairs
        if pairs.num_rows == num_users:
            return np.zeros(num_users, np.int64)
        users = Pairs(starts=pairs.starts[: num_users + 1], columns=pairs.columns)
        return window_counts(users, WINDOW)

    def loop(
        self,
        progress: Progress,
        phase: str,
        checkpoint: Checkpoint | None,
        carried: Mapping[str, Any] | None = None,
        stored: Callable[[], Iterable[npt.NDArray[Any]]] = tuple,
    ) -> TrainingLoop:
        """Return the loop over the batches of users."""
        return TrainingLoop(
            self,
            self.histories.active,
            self.config,
            progress=progress,
            phase=phase,
            checkpoint=checkpoint,
            carried=carried,
            stored=stored,
            workers=self._workers,
        )

    def step(self, examples: npt.NDArray[np.int32]) -> tf.Tensor:
        """Train on a batch of users."""
        own = examples[self._workers.index :: self._workers.count]
        total = (self.histories.counts[examples] ** self.config.activity_power).sum()
        return self._step(tf.constant(own), tf.constant(total, tf.float32))

    def interactions(self, examples: npt.NDArray[np.int32]) -> int:
        """Number of interactions of a batch of users."""
        return int(self.histories.counts[examples].sum())

    def variables(self) -> list[tf.Variable]:
        """Variables that a step changes."""
        return [*self.model.state(), *self._optimizer.variables()]

    def _make_step(self) -> "tf.types.experimental.GenericFunction":
        variables = self.model.trainable_variables

        def replica_step(users: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = self.model.loss(users, total)
            gradients = tape.gradient(loss, variables)
            # Adds the gradients of all workers.
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return self._workers.sum(loss)

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.float32)]
        )
        def step(users: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            return self._workers.strategy.run(replica_step, args=(users, total))

        return step


def _with_windows(users: Rows, earlier: npt.NDArray[np.int64], now: npt.NDArray[np.int64]) -> Rows:
    """Add the windows of users who have as many as before; given all users' numbers of them."""
    same = earlier[users.earlier] == now[users.places]
    places, before = users.places[same], users.earlier[same]
    counts = now[places]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = len(now) + np.cumsum(now) - now
    first_before = len(earlier) + np.cumsum(earlier) - earlier
    return Rows(
        places=np.concatenate([users.places, np.repeat(first[places], counts) + within]),
        earlier=np.concatenate([users.earlier, np.repeat(first_before[before], counts) + within]),
    )
