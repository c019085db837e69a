"""Trains on batches of interactions with TFRS's retrieval task, as its tutorials do."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.ratings import fit_means, ratings_of
from shortlist.export.data.split import Split
from shortlist.export.progress import Progress
from shortlist.export.towers.rating_head import NetworkRatingHead, RatingHead
from shortlist.export.towers.trained import TrainedModel, popular_query
from shortlist.export.training.checkpoint import Checkpoint
from shortlist.export.training.loop import TrainingLoop
from shortlist.export.training.retrieval_model import MultitaskModel, RetrievalModel
from shortlist.export.training.summaries import Summaries
from shortlist.export.training.workers import Workers, alone

__all__ = ["InBatchSteps", "train_on_interactions"]


def train_on_interactions(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
) -> TrainedModel:
    """A model trained on all that is not held out, for as many epochs as configured.

    Raises:
        CheckpointError: The checkpoint to go on from is of another training.
        ValueError: The loss stopped being a number.
    """
    saved = checkpoint.restored() if checkpoint is not None else None
    steps = InBatchSteps(dataset, split.fitted, model_config, config, workers)
    loop = steps.loop(progress, "fit", checkpoint)
    with Summaries(config.tensorboard) as summaries:
        records = loop.run(config.epochs, saved=saved, finished=summaries.write)
    model, counts = steps.model, steps.candidate_counts
    candidate_embeddings = model.candidate_embeddings()
    model.query_tower.set_unknown(popular_query(candidate_embeddings, counts))
    return TrainedModel(
        query_tower=model.query_tower,
        query_embeddings=model.query_embeddings(),
        candidate_embeddings=candidate_embeddings,
        epochs=config.epochs,
        records=records,
        rating_head=_rating_head(model, dataset, split),
    )


class InBatchSteps:
    """The step of `tfrs.Model`, without the input pipeline and the metrics around it.

    Attributes:
        model: What is trained.
        candidate_counts: int64 `[num_candidates]`, interactions of each candidate.
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
        self.candidate_counts = np.bincount(
            self._columns["candidate"], minlength=len(dataset.candidate_ids)
        )
        self._config = config
        optimizers = {"adagrad": tf.keras.optimizers.Adagrad, "adam": tf.keras.optimizers.Adam}
        with self._workers.strategy.scope():
            self.model = _model(dataset, model_config, config)
            self._optimizer = optimizers[config.optimizer](config.learning_rate)
            self._optimizer.build(self.model.trainable_variables)
        self._step = self._make_step()

    def loop(self, progress: Progress, phase: str, checkpoint: Checkpoint | None) -> TrainingLoop:
        """The loop over this training's batches of interactions."""
        total = len(self._columns["user"])
        return TrainingLoop(
            self,
            np.arange(total, dtype=np.int32),
            self._config,
            batches=math.ceil(total / self._config.batch_size),
            progress=progress,
            phase=phase,
            checkpoint=checkpoint,
            workers=self._workers,
        )

    def step(self, examples: npt.NDArray[np.int32]) -> tf.Tensor:
        """Learns from a batch of interactions, given by their positions."""
        own = np.arange(len(examples)) % self._workers.count == self._workers.index
        features = {name: column[examples[own]] for name, column in self._columns.items()}
        features["others"] = self._columns["candidate"][examples[~own]]
        return self._step(
            {name: tf.constant(column) for name, column in features.items()},
            tf.constant(len(examples), tf.float32),
        )

    def interactions(self, examples: npt.NDArray[np.int32]) -> int:
        """As many as there are examples."""
        return len(examples)

    def variables(self) -> list[tf.Variable]:
        """All that a step changes."""
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
            # Sums the gradients of all workers, as TFRS's loss is a sum.
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            # A mean can be compared between batches.
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
    users = np.bincount(dataset.user_positions[split.fitted], minlength=len(dataset.user_ids))
    candidates = np.bincount(
        dataset.candidate_positions[split.fitted], minlength=len(dataset.candidate_ids)
    )
    return NetworkRatingHead(
        fit_means(dataset, split),
        model.rating_network,
        known_users=users > 0,
        known_candidates=candidates > 0,
    )
