"""Trains on batches of users: the default recipe."""

import dataclasses
import gc
import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from export._tf import tf
from export.checkpoint import Checkpoint, Saved
from export.config import ModelConfig, TrainConfig
from export.data.dataset import Dataset
from export.history import UserHistories
from export.metrics import at_k
from export.optimizers import make_optimizer
from export.progress import Progress
from export.ranking import inner_product_scorer, rank_held_out
from export.split import Split
from export.summaries import Summaries
from export.towers import TableTower
from export.trained import EpochRecord, TrainedModel, popular_query
from export.training_loop import TrainingLoop
from export.user_softmax import UserSoftmaxModel
from export.workers import Workers, alone

__all__ = ["UserSteps", "train_on_users"]

log = logging.getLogger(__name__)

_VALIDATION_K = 100
_VALIDATION_USERS = 5_000  # a sample is enough to stop by
_STEPS_BETWEEN_LOOKS = 50  # an epoch of a small data set is too little to look after
_FIT = "fit"  # the training of the final model


def train_on_users(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
) -> TrainedModel:
    """A model trained on all that is not held out.

    Where there is a validation part, a first training without it finds the number of
    epochs with the best NDCG@100; the final model is trained as long, on both parts.

    Raises:
        CheckpointError: The checkpoint to go on from is of another training.
        ValueError: The loss stopped being a number.
    """
    epochs, records = config.epochs, []
    saved = checkpoint.restored() if checkpoint is not None else None
    if saved is not None and saved.phase == _FIT:
        epochs = saved.carried["epochs"]
        records = [EpochRecord(**record) for record in saved.carried["records"]]
    elif len(split.validation):
        search = UserSteps(dataset, split.training, model_config, config, workers)
        loop = search.loop(progress, "search", checkpoint)
        records = search.run(loop, config.epochs, saved=saved, validation=split)
        looks = [record for record in records if record.validation is not None]
        epochs = max(looks, key=lambda record: record.validation or 0.0).epoch
        log.info("best NDCG@%d on the validation part after %d epochs", _VALIDATION_K, epochs)
        del search, loop
        gc.collect()  # its tables and their moments, before the next ones are made
    final = UserSteps(dataset, split.fitted, model_config, config, workers)
    carried = {"epochs": epochs, "records": [dataclasses.asdict(record) for record in records]}
    loop = final.loop(progress, _FIT, checkpoint, carried)
    fitted = final.run(loop, epochs, saved=saved)
    model, histories = final.model, final.histories
    query_embeddings, candidates = model.query_embeddings(), model.candidate_embeddings()
    unknown = popular_query(
        candidates, histories.candidate_counts, temperature=model_config.temperature
    )
    known = np.zeros(len(dataset.user_ids), bool)
    known[histories.active] = True
    query_embeddings[~known] = unknown
    return TrainedModel(
        query_tower=TableTower(
            dataset.user_ids, query_embeddings, unknown, known=known, name="query_tower"
        ),
        query_embeddings=query_embeddings,
        candidate_embeddings=candidates,
        epochs=epochs,
        records=records or fitted,
    )


class UserSteps:
    """One model on one part of the interactions.

    Attributes:
        histories: That part by user.
        model: What is trained.
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
        self._dataset = dataset
        self._config = config
        self.histories = UserHistories(dataset, interactions)
        # Made outside of the strategy, all workers draw the same numbers.
        random = tf.random.Generator.from_seed(config.seed)
        with self._workers.strategy.scope():
            self.model = UserSoftmaxModel(
                dataset, self.histories, model_config, config, random=random
            )
            self._optimizer = make_optimizer(
                config.optimizer, config.learning_rate, lazy=self.model.is_sampled
            )
            # It would make its variables at its first step; a checkpoint needs them before.
            self._optimizer._create_all_weights(self.model.trainable_variables)
        self._step = self._make_step()

    def loop(
        self,
        progress: Progress,
        phase: str,
        checkpoint: Checkpoint | None,
        carried: Mapping[str, Any] | None = None,
    ) -> TrainingLoop:
        """The loop over this training's batches of users."""
        return TrainingLoop(
            self,
            self.histories.active,
            self._config,
            batches=math.ceil(len(self.histories.active) / self._config.batch_size),
            progress=progress,
            phase=phase,
            checkpoint=checkpoint,
            carried=carried,
            workers=self._workers,
        )

    def run(
        self,
        loop: TrainingLoop,
        epochs: int,
        *,
        saved: Saved | None = None,
        validation: Split | None = None,
    ) -> list[EpochRecord]:
        """Trains for some epochs, or until the validation part has had enough."""
        per_epoch = math.ceil(len(self.histories.active) / self._config.batch_size)
        with Summaries(self._config.tensorboard) as summaries:
            return loop.run(
                epochs,
                saved=saved,
                validate=None if validation is None else lambda: self._validate(validation),
                epochs_between_looks=max(1, round(_STEPS_BETWEEN_LOOKS / per_epoch)),
                finished=summaries.write,
            )

    def step(self, examples: npt.NDArray[np.int32]) -> tf.Tensor:
        """Learns from a batch of users."""
        own = examples[self._workers.index :: self._workers.count]
        total = (self.histories.counts[examples] ** self._config.activity_power).sum()
        return self._step(tf.constant(own), tf.constant(total, tf.float32))

    def interactions(self, examples: npt.NDArray[np.int32]) -> int:
        """How many interactions those users have."""
        return int(self.histories.counts[examples].sum())

    def variables(self) -> list[tf.Variable]:
        """All that a step changes."""
        return [*self.model.state(), *self._optimizer.variables()]

    def _make_step(self) -> "tf.types.experimental.GenericFunction":
        variables = self.model.trainable_variables

        def replica_step(users: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = self.model.loss(users, total)
            gradients = tape.gradient(loss, variables)
            # Sums the gradients of all workers.
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return self._workers.sum(loss)

        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.float32)]
        )
        def step(users: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
            return self._workers.strategy.run(replica_step, args=(users, total))

        return step

    def _validate(self, split: Split) -> float:
        judged = split.validation
        users = np.unique(self._dataset.user_positions[judged])
        if len(users) > _VALIDATION_USERS:
            random = np.random.default_rng(self._config.seed)
            some = random.choice(users, _VALIDATION_USERS, replace=False)
            judged = judged[np.isin(self._dataset.user_positions[judged], some)]
        scorer = inner_product_scorer(
            self.model.query_embeddings(), self.model.candidate_embeddings()
        )
        ranking = rank_held_out(
            scorer,
            self._dataset,
            split,
            top_k=_VALIDATION_K,
            judged=judged,
            seen=split.training,
        )
        return at_k(ranking.ranks["seen_excluded"], [ranking.top_k])[f"ndcg@{ranking.top_k}"]
