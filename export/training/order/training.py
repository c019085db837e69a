"""Trains the query tower over the order of events, and its candidate embeddings."""

import dataclasses
import gc
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import TrainConfig
from shortlist.export.data.histories import Histories
from shortlist.export.progress import Progress
from shortlist.export.towers.order import OrderTower, Uniform
from shortlist.export.towers.shared import shareable_table, shared_tensor
from shortlist.export.training.checkpoint import Checkpoint, Saved
from shortlist.export.training.loop import TrainingLoop
from shortlist.export.training.optimizers import LazyAdam
from shortlist.export.training.order.batches import OrderBatches
from shortlist.export.training.user_scores import CandidateSample
from shortlist.export.training.workers import Workers, alone

__all__ = ["OrderSteps", "order_epochs", "train_order"]

Table = npt.NDArray[np.float32]

_LENGTH = 50  # 100 was no better on MovieLens
_TOKENS = 1024  # inputs per step
_NEGATIVES = 1024  # per step
_DROPOUT = 0.2
_LATER = 0.3  # weight of each later event, compared with the one before it
_SPREAD = 0.05  # standard deviation of the first candidate embeddings
_LEARNING_RATE = 4e-3
_WARM_UP = 100
_LEAST_RATE = 0.05  # share of the learning rate at the end
_EPOCHS = 6  # 9 were no better on Amazon Beauty
# Events in all epochs: with fewer, MovieLens latest-small is ranked worse at 10, and with more at
# 100; 50 million take 26 minutes of CPU time with a million candidates.
_LEAST_EVENTS, _MOST_EVENTS = 900_000, 50_000_000
_MOST_EPOCHS = 60
_MASKED = -1e9


def order_epochs(num_events: int) -> int:
    """Return the number of epochs for some events: more for little data, fewer for much."""
    events = max(num_events, 1)
    few = min(max(_LEAST_EVENTS // events, _EPOCHS), _MOST_EPOCHS)
    return min(few, max(_MOST_EVENTS // events, 1))


def train_order(
    histories: Histories,
    taste_candidates: Table,
    config: TrainConfig,
    *,
    dimension: int,
    epochs: int,
    progress: Progress,
    phase: str,
    checkpoint: Checkpoint | None = None,
    carried: Mapping[str, Any] | None = None,
    stored: Callable[[], Iterable[npt.NDArray[Any]]] = tuple,
    saved: Saved | None = None,
    workers: Workers | None = None,
) -> tuple[OrderTower, Table]:
    """Train a tower and its candidate embeddings to tell the next events of each user.

    Args:
        histories: Events to train on.
        taste_candidates: `[num_candidates, d]`, trained candidate embeddings to start from.
        config: Training configuration: seed, and place of TensorBoard's files.
        dimension: Length of an embedding, at most d.
        epochs: Passes over the events; see `order_epochs`.
        progress: Callback, called for each training batch.
        phase: Name in checkpoints and progress.
        checkpoint: Checkpoint to write; None to write none.
        carried: Extra values to store in checkpoints of this phase.
        stored: Returns further arrays to store there.
        saved: Checkpoint to resume from, if it belongs to this phase.
        workers: Processes that share the batches; None for this one alone.

    Returns:
        The tower, and candidate embeddings `[num_candidates, tower.dimension]`; the dimension is
        128, or that of `taste_candidates` if less.

    Raises:
        CheckpointError: The workers do not see the same checkpoint.
        ValueError: No user has two events, or the loss is no longer finite.
    """
    gc.collect()  # frees the taste's tables and their moments, which are in reference cycles
    steps = OrderSteps(
        histories,
        taste_candidates,
        dimension=dimension,
        epochs=epochs,
        seed=config.seed,
        length=_LENGTH,
        tokens=_TOKENS,
        workers=workers,
    )
    loop = TrainingLoop(
        steps,
        np.arange(steps.batches.count, dtype=np.int32),
        dataclasses.replace(config, batch_size=1),  # an example is a batch
        progress=progress,
        phase=phase,
        checkpoint=checkpoint,
        carried=carried,
        stored=stored,
        workers=workers,
    )
    loop.run(epochs, saved=saved)
    return steps.tower, steps.table.numpy()


class OrderSteps:
    """Trains a tower; examples are numbers of batches.

    All random numbers of a step follow from the seed and the number of the step, which is the
    optimizer's. So a resumed training draws the same ones, and so do all workers.

    Attributes:
        batches: Batches of an epoch.
        tower: Tower to train.
        table: Candidate embeddings `[num_candidates, d]`.
    """

    def __init__(
        self,
        histories: Histories,
        taste_candidates: Table,
        *,
        dimension: int,
        epochs: int,
        seed: int,
        length: int,
        tokens: int,
        workers: Workers | None = None,
    ) -> None:
        """Create the tower and its optimizer.

        Args:
            histories: Events to train on.
            taste_candidates: Candidate embeddings to start from.
            dimension: Length of an embedding, at most that of these.
            epochs: Planned passes, for the learning rate.
            seed: Seed of all random numbers.
            length: Largest number of events of a query.
            tokens: Events per step, about.
            workers: Processes that share the batches; None for this one alone.
        """
        self._workers = workers or alone()
        self._seed = seed
        self.batches = OrderBatches(histories, length=length, tokens=tokens, seed=seed)
        counts = histories.counts()
        self._sample = CandidateSample(counts, _NEGATIVES) if len(counts) > _NEGATIVES else None
        start = _principal(taste_candidates, dimension)
        # Created outside of the strategy, so that all workers draw the same numbers.
        random = tf.random.Generator.from_seed(seed)
        with self._workers.strategy.scope():
            self.tower = OrderTower(start.shape[1], length, random)
            self.table = tf.Variable(shared_tensor(start), name="order_candidates")
            self._trained = [self.table, *self.tower.trainable_variables]
            rate = _Rate(self.batches.count * epochs)
            self._optimizer = LazyAdam(rate, beta_2=0.99)
            # By default created at the first step, but a checkpoint needs them earlier.
            self._optimizer._create_all_weights(self._trained)
        self._step = self._make_step()

    def step(self, examples: npt.NDArray[np.int32]) -> tf.Tensor:
        """Train on a batch; `examples` int32 `[1]` is its number."""
        epoch = int(self._optimizer.iterations.numpy()) // self.batches.count
        batch = self.batches.batch(int(examples[0]), epoch=epoch)
        own = slice(self._workers.index, None, self._workers.count)
        return self._step(
            tf.constant(batch.candidates[own]),
            tf.constant(batch.gaps[own]),
            tf.constant(batch.weights[own]),
            tf.constant(len(batch.weights)),
            tf.constant(self.interactions(examples), tf.float32),
        )

    def interactions(self, examples: npt.NDArray[np.int32]) -> int:
        """Number of events that a batch predicts."""
        return self.batches.size(int(examples[0]))

    def variables(self) -> list[tf.Variable]:
        """Variables that a step changes."""
        return [*self._trained, *self._optimizer.variables()]

    def _loss(
        self, candidates: tf.Tensor, gaps: tf.Tensor, weights: tf.Tensor, rows: tf.Tensor
    ) -> tf.Tensor:
        """Sum of the losses of all events but the first ones, by their weights.

        A query competes with a sample of the corpus for the next event, by the logarithm of the
        sampled softmax. Later events of the row are targets, too, to a falling extent.
        """
        seed = tf.stack([tf.constant(self._seed, tf.int64), self._optimizer.iterations])
        seeds = tf.random.split(seed, 2)
        embeddings = tf.gather(self.table, candidates)
        queries = self.tower.encode(
            embeddings[:, :-1], gaps[:, :-1], dropout=_DROPOUT, random=self._uniform(seeds[0], rows)
        )
        targets = embeddings[:, 1:]
        weights = weights[:, 1:]
        valid = tf.cast(weights > 0, tf.float32)
        total = self._log_total(queries, targets, candidates[:, 1:], seeds[1])
        place = tf.range(tf.shape(targets)[1])
        ahead = tf.cast(place - place[:, None], tf.float32)
        shares = tf.where(ahead >= 0, _LATER**ahead, 0.0) * valid[:, None]
        shares = tf.math.divide_no_nan(shares, tf.reduce_sum(shares, axis=2, keepdims=True))
        expected = tf.reduce_sum(queries * tf.matmul(shares, targets), axis=2)
        return tf.reduce_sum(weights * (total - expected))

    def _log_total(
        self, queries: tf.Tensor, targets: tf.Tensor, positions: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Logarithm of the sum of exp of the logits of the corpus, float32 `[batch, l]`.

        Those of the other candidates are estimated from a sample, if the corpus is large.
        """
        if self._sample is None:
            others, correction = tf.range(self.table.shape[0]), 0.0
        else:
            numbers = tf.random.stateless_uniform([self._sample.size], seed, dtype=tf.float64)
            others, correction = self._sample.draw(numbers)
        flat = tf.reshape(queries, [-1, self.tower.dimension])
        own = tf.reduce_sum(queries * targets, axis=2)
        scores = tf.matmul(flat, tf.gather(self.table, others), transpose_b=True) + correction
        is_own = tf.reshape(positions, [-1, 1]) == others
        scores = tf.where(is_own, _MASKED, scores)
        scores = tf.concat([tf.reshape(own, [-1, 1]), scores], axis=1)
        first = tf.zeros(tf.shape(scores)[:1], tf.int32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(first, scores)
        return tf.reshape(loss, tf.shape(own)) + own

    def _uniform(self, seed: tf.Tensor, rows: tf.Tensor) -> Uniform:
        """Source of random numbers for the rows of this worker, of a batch of `rows`.

        All workers draw the numbers of the whole batch, so that the result is that of one.
        """
        calls = itertools.count()
        own = slice(self._workers.index, None, self._workers.count)

        def uniform(shape: tf.Tensor) -> tf.Tensor:
            whole = tf.concat([[rows], shape[1:]], axis=0)
            return tf.random.stateless_uniform(whole, tf.random.fold_in(seed, next(calls)))[own]

        return uniform

    def _make_step(self) -> "tf.types.experimental.GenericFunction":
        def replica_step(
            candidates: tf.Tensor,
            gaps: tf.Tensor,
            weights: tf.Tensor,
            rows: tf.Tensor,
            total: tf.Tensor,
        ) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = self._loss(candidates, gaps, weights, rows) / total
            gradients = tape.gradient(loss, self._trained)
            # Adds the gradients of all workers.
            self._optimizer.apply_gradients(zip(gradients, self._trained, strict=True))
            return self._workers.sum(loss)

        @tf.function(
            autograph=False,
            input_signature=[
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None, None], tf.float32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.float32),
            ],
        )
        def step(*batch: tf.Tensor) -> tf.Tensor:
            return self._workers.strategy.run(replica_step, args=batch)

        return step


class _Rate(tf.keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises for some steps, then falls along a cosine."""

    def __init__(self, steps: int) -> None:
        self._steps = max(steps, 1)
        self._warm_up = max(min(_WARM_UP, steps // 10), 1)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        cosine = 0.5 + 0.5 * tf.cos(math.pi * tf.minimum(step / self._steps, 1.0))
        rise = tf.minimum((step + 1) / self._warm_up, 1.0)
        return _LEARNING_RATE * rise * (_LEAST_RATE + (1 - _LEAST_RATE) * cosine)

    def get_config(self) -> dict[str, int]:
        return {"steps": self._steps}


def _principal(table: Table, most: int) -> Table:
    """Largest principal components of a table, `[n, most]` or all of them, with equal scale."""
    mean = table.mean(axis=0)
    covariance = table.T @ table / len(table) - np.outer(mean, mean)
    variances, directions = (part[..., ::-1][..., :most] for part in np.linalg.eigh(covariance))
    components = shareable_table(len(table), directions.shape[1])
    np.matmul(table, directions, out=components)
    components -= mean @ directions
    components *= np.float32(_SPREAD / max(float(variances.mean()), 1e-24) ** 0.5)
    return components
