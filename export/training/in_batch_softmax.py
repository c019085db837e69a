"""In-batch softmax: trains on batches of interactions, as the tutorials of TFRS do."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf, tfrs
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.split import Split
from shortlist.export.progress import Progress
from shortlist.export.towers.ids import IdTower
from shortlist.export.towers.rating_head import NetworkRatingHead, RatingHead
from shortlist.export.towers.rating_means import fit_means, ratings_of
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.checkpoint import Checkpoint
from shortlist.export.training.loop import TrainingLoop
from shortlist.export.training.query.assembly import Learned, QuerySettings, assemble
from shortlist.export.training.query.taste import Taste
from shortlist.export.training.workers import Workers, alone

__all__ = [
    "InBatchSteps",
    "MultitaskModel",
    "RetrievalModel",
    "in_batch_softmax",
    "train_on_interactions",
]

log = logging.getLogger(__name__)

Embed = Callable[[tf.Tensor], tf.Tensor]

_EMBED_BATCH = 65_536


def in_batch_softmax(
    embed_users: Embed,
    embed_candidates: Embed,
    users: tf.Tensor,
    candidates: tf.Tensor,
    others: tf.Tensor | None = None,
) -> tf.Tensor:
    """Sum over a batch of -log softmax of each candidate among all candidates of the batch.

    Equal to `tfrs.tasks.Retrieval`, but computes no score twice. A batch of 8192 rows of
    MovieLens 100K holds at most 943 users and 1682 candidates, so the `[8192, 8192]` scores of
    TFRS repeat the same 1.6 million numbers about 40 times. Here each is computed once, and
    the score of a candidate that occurs n times is raised by log n.

    Args:
        embed_users: Maps positions int32 `[n]` to queries float32 `[n, d]`.
        embed_candidates: Maps positions int32 `[n]` to candidate embeddings float32 `[n, d]`.
        users: Int32 `[batch]`, positions.
        candidates: Int32 `[batch]`, positions.
        others: Int32 `[n]`, candidates in the other workers' rows of the batch, which
            compete, too.

    Returns:
        Float32 scalar.
    """
    distinct_users, user_of, user_counts = tf.unique_with_counts(users)
    competing = candidates if others is None else tf.concat([candidates, others], axis=0)
    distinct_candidates, candidate_of, candidate_counts = tf.unique_with_counts(competing)
    queries = embed_users(distinct_users)
    embeddings = embed_candidates(distinct_candidates)
    scores = tf.matmul(queries, embeddings, transpose_b=True)
    raised = scores + tf.math.log(tf.cast(candidate_counts, tf.float32))
    totals = tf.reduce_logsumexp(raised, axis=1) * tf.cast(user_counts, tf.float32)
    own = tf.gather(queries, user_of)
    own *= tf.gather(embeddings, candidate_of[: tf.size(candidates)])
    return tf.reduce_sum(totals) - tf.reduce_sum(own)


class RetrievalModel(tfrs.Model):
    """Query tower and candidate tower, trained with in-batch softmax."""

    def __init__(self, dataset: Dataset, config: ModelConfig) -> None:
        super().__init__()
        self.query_tower = IdTower(
            dataset.user_ids, embedding_dim=config.embedding_dim, name="query_tower"
        )
        self.candidate_tower = IdTower(
            dataset.candidate_ids, embedding_dim=config.embedding_dim, name="candidate_tower"
        )
        # Equal to `in_batch_softmax` but 40x slower; tests compare the two.
        self.task = tfrs.tasks.Retrieval()
        self._num_users = len(dataset.user_ids)
        self._num_candidates = len(dataset.candidate_ids)

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Loss of a batch of interactions, given by `user` and `candidate` positions."""
        return in_batch_softmax(
            self.query_tower.embed_positions,
            self.candidate_tower.embed_positions,
            features["user"],
            features["candidate"],
            features.get("others"),
        )

    def query_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_users, d]`, in the order of the data set."""
        return _embed_all(self.query_tower, self._num_users)

    def candidate_embeddings(self) -> npt.NDArray[np.float32]:
        """Float32 `[num_candidates, d]`, in the order of the data set."""
        return _embed_all(self.candidate_tower, self._num_candidates)


class MultitaskModel(RetrievalModel):
    """The same towers, plus a network over both embeddings that predicts the rating."""

    def __init__(
        self,
        dataset: Dataset,
        config: ModelConfig,
        *,
        retrieval_weight: float,
        rating_weight: float,
    ) -> None:
        super().__init__(dataset, config)
        self.rating_network = tf.keras.Sequential(
            [
                tf.keras.layers.Dense(256, activation="relu"),
                tf.keras.layers.Dense(128, activation="relu"),
                tf.keras.layers.Dense(1),
            ]
        )
        self.rating_network.build([None, 2 * config.embedding_dim])
        self.rating_task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError())
        self._weights_of_losses = (retrieval_weight, rating_weight)

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Weighted sum of the retrieval and rating losses of a batch; needs `rating`, too."""
        queries = self.query_tower.embed_positions(features["user"])
        candidates = self.candidate_tower.embed_positions(features["candidate"])
        predictions = self.rating_network(tf.concat([queries, candidates], axis=1))
        rating_loss = self.rating_task(labels=features["rating"][:, None], predictions=predictions)
        retrieval_weight, rating_weight = self._weights_of_losses
        retrieval_loss = super().compute_loss(features, training)
        return retrieval_weight * retrieval_loss + rating_weight * rating_loss


def _embed_all(tower: IdTower, count: int) -> npt.NDArray[np.float32]:
    """Embeddings of positions 0..count-1, in batches to limit memory."""
    parts = [
        tower.embed_positions(tf.range(start, min(start + _EMBED_BATCH, count))).numpy()
        for start in range(0, count, _EMBED_BATCH)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)


def train_on_interactions(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
) -> TrainedModel:
    """Train a model on the fitted part for the configured number of epochs; see `train`."""
    if dataset.weights is not None:
        log.warning("in_batch_softmax counts all interactions equally, whatever their weights")
    saved = checkpoint.restored() if checkpoint is not None else None
    steps = InBatchSteps(dataset, split.fitted, model_config, config, workers)
    loop = steps.loop(progress, "fit", checkpoint)
    records = loop.run(config.epochs, saved=saved)
    model, kept = steps.model, Histories.of_users(dataset, split.fitted)
    taste = Taste.of_rows(
        model.query_embeddings(),
        model.candidate_embeddings(),
        kept.events,
        num_users=len(dataset.user_ids),
    )
    return assemble(
        Learned(taste=taste),
        QuerySettings(user_share=1.0),
        dataset,
        kept,
        epochs=config.epochs,
        records=records,
        rating_head=_rating_head(model, dataset, split),
    )


class InBatchSteps:
    """Training step of `tfrs.Model`, without its input pipeline and metrics.

    Attributes:
        model: Model to train.
    """

    def __init__(
        self,
        dataset: Dataset,
        interactions: npt.NDArray[np.int64],
        model_config: ModelConfig,
        config: TrainConfig,
        workers: Workers | None = None,
    ) -> None:
        self._workers = workers or alone()
        if config.rating_weight and self._workers.count > 1:
            raise ValueError(
                f"rating_weight {config.rating_weight:g} needs one process, and TF_CONFIG names "
                f"{self._workers.count}; unset it, or train without ratings"
            )
        tf.keras.utils.set_random_seed(config.seed)
        self._columns: dict[str, npt.NDArray[Any]] = {
            "user": dataset.user_positions[interactions],
            "candidate": dataset.candidate_positions[interactions],
        }
        if config.rating_weight:
            self._columns["rating"] = ratings_of(dataset)[interactions]
        self._config = config
        optimizers = {"adagrad": tf.keras.optimizers.Adagrad, "adam": tf.keras.optimizers.Adam}
        with self._workers.strategy.scope():
            self.model = _model(dataset, model_config, config)
            self._optimizer = optimizers[config.optimizer](config.learning_rate)
            self._optimizer.build(self.model.trainable_variables)
        self._step = self._make_step()

    def loop(self, progress: Progress, phase: str, checkpoint: Checkpoint | None) -> TrainingLoop:
        """Return the loop over the batches of interactions."""
        return TrainingLoop(
            self,
            np.arange(len(self._columns["user"]), dtype=np.int32),
            self._config,
            progress=progress,
            phase=phase,
            checkpoint=checkpoint,
            workers=self._workers,
        )

    def step(self, examples: npt.NDArray[np.int32]) -> tf.Tensor:
        """Train on a batch of interactions, given by their positions."""
        own = np.arange(len(examples)) % self._workers.count == self._workers.index
        features = {name: column[examples[own]] for name, column in self._columns.items()}
        features["others"] = self._columns["candidate"][examples[~own]]
        return self._step(
            {name: tf.constant(column) for name, column in features.items()},
            tf.constant(len(examples), tf.float32),
        )

    def interactions(self, examples: npt.NDArray[np.int32]) -> int:
        """Number of interactions in a batch: one per example."""
        return len(examples)

    def variables(self) -> list[tf.Variable]:
        """Variables that a step changes."""
        return [*self.model.trainable_variables, *self._optimizer.variables]

    def _make_step(self) -> "tf.types.experimental.GenericFunction":
        variables = self.model.trainable_variables
        specs = {
            name: tf.TensorSpec([None], column.dtype) for name, column in self._columns.items()
        }
        specs["others"] = tf.TensorSpec([None], tf.int32)

        def replica_step(features: dict[str, tf.Tensor], total: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = self.model.compute_loss(features, training=True)
            gradients = tape.gradient(loss, variables)
            # Adds the gradients of all workers, because the loss of TFRS is a sum.
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            # Means are comparable between batches.
            return self._workers.sum(loss) / total

        @tf.function(input_signature=[specs, tf.TensorSpec([], tf.float32)])
        def step(features: dict[str, tf.Tensor], total: tf.Tensor) -> tf.Tensor:
            return self._workers.strategy.run(replica_step, args=(features, total))

        return step


def _model(dataset: Dataset, model_config: ModelConfig, config: TrainConfig) -> RetrievalModel:
    if not config.rating_weight:
        return RetrievalModel(dataset, model_config)
    return MultitaskModel(
        dataset,
        model_config,
        retrieval_weight=config.retrieval_weight,
        rating_weight=config.rating_weight,
    )


def _rating_head(model: RetrievalModel, dataset: Dataset, split: Split) -> RatingHead | None:
    if not isinstance(model, MultitaskModel):
        return None
    return NetworkRatingHead(
        fit_means(dataset, split),
        model.rating_network,
        known_users=dataset.user_counts(split.fitted) > 0,
        known_candidates=dataset.candidate_counts(split.fitted) > 0,
    )
