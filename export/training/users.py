"""Trains on batches of users: the default recipe."""

import dataclasses
import gc
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.metrics import at_k
from shortlist.export.evaluation.ranking import inner_product_scorer, rank_held_out
from shortlist.export.progress import Progress
from shortlist.export.towers.ids import TableTower
from shortlist.export.towers.trained import EpochRecord, TrainedModel, popular_query
from shortlist.export.training.checkpoint import Checkpoint, Saved
from shortlist.export.training.history import UserHistories
from shortlist.export.training.loop import TrainingLoop
from shortlist.export.training.optimizers import make_optimizer
from shortlist.export.training.seen_last import SeenLastModel
from shortlist.export.training.summaries import Summaries
from shortlist.export.training.user_softmax import UserSoftmaxModel, pair_dimensions
from shortlist.export.training.workers import Workers, alone

__all__ = ["UserSteps", "train_on_users"]

log = logging.getLogger(__name__)

Table = npt.NDArray[np.float32]
Model = UserSoftmaxModel | SeenLastModel

_VALIDATION_K = 100
_VALIDATION_USERS = 5_000  # a sample is enough to stop by
_STEPS_BETWEEN_LOOKS = 50  # an epoch of a small data set is too little to look after
# Phases, as progress and checkpoints call them.
_SEARCH = "search"  # for the number of epochs
_FIT = "fit"  # the final model
_SEEN_LAST = "seen last"  # its second stage, if wanted


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
    epochs with the best NDCG@100; the final model is trained as long, on both parts. A
    second stage follows where the configuration wants one.

    Raises:
        CheckpointError: The checkpoint to go on from is of another training.
        ValueError: The loss stopped being a number.
    """
    saved = checkpoint.restored() if checkpoint is not None else None
    epochs, records = config.epochs, []
    if saved is not None and saved.phase != _SEARCH:
        epochs = saved.carried["epochs"]
        records = [EpochRecord(**record) for record in saved.carried["records"]]
    elif len(split.validation):
        epochs, records = _search(
            dataset, split, model_config, config, progress, checkpoint, saved, workers
        )
        gc.collect()  # its tables and their moments, before the next ones are made
    carried = {"epochs": epochs, "records": [dataclasses.asdict(record) for record in records]}
    if saved is not None and saved.phase == _SEEN_LAST:
        dimensions = model_config.embedding_dim
        users = np.zeros([len(dataset.user_ids), dimensions], np.float32)
        candidates = np.zeros([len(dataset.candidate_ids), dimensions], np.float32)
        histories = UserHistories(dataset, split.fitted)
    else:
        final = UserSteps.of_data(dataset, split.fitted, model_config, config, workers)
        fitted = final.run(final.loop(progress, _FIT, checkpoint, carried), epochs, saved=saved)
        records, histories = records or fitted, final.histories
        carried["records"] = [dataclasses.asdict(record) for record in records]
        users, candidates = final.model.query_embeddings(), final.model.candidate_embeddings()
        del final
        gc.collect()
    if config.seen_last_epochs:
        make = partial(SeenLastModel, histories, users, candidates, config)
        second = UserSteps(make, histories, config, workers)
        loop = second.loop(progress, _SEEN_LAST, checkpoint, carried)
        second.run(loop, config.seen_last_epochs, saved=saved)
        users, candidates = second.model.query_embeddings(), second.model.candidate_embeddings()
    _share_out(users, candidates, pair_dimensions(model_config)[0])
    return _trained(dataset, histories, users, candidates, epochs, records)


def _search(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
    checkpoint: Checkpoint | None,
    saved: Saved | None,
    workers: Workers | None,
) -> tuple[int, list[EpochRecord]]:
    """The number of epochs that serves the validation part best."""
    search = UserSteps.of_data(dataset, split.training, model_config, config, workers)
    records = search.run(
        search.loop(progress, _SEARCH, checkpoint),
        config.epochs,
        saved=saved,
        validate=lambda: _look(search.model, dataset, split, config.seed),
    )
    looks = [record for record in records if record.validation is not None]
    epochs = max(looks, key=lambda record: record.validation or 0.0).epoch
    log.info("best NDCG@%d on the validation part after %d epochs", _VALIDATION_K, epochs)
    return epochs, records


def _share_out(queries: Table, candidates: Table, cosines: int) -> None:
    """Shares the length of the embeddings out anew; no inner product of the two changes.

    Candidates get the same length in the cosines' dimensions, and half of it, on average,
    in the others: where candidates are compared with each other, the cosines decide.
    """
    for part, wanted in ((slice(0, cosines), 1.0), (slice(cosines, None), 0.5)):
        squares = np.einsum("nd,nd->n", candidates[:, part], candidates[:, part])
        length = float(np.sqrt(squares.mean(dtype=np.float64)))
        if length > 0:
            candidates[:, part] *= np.float32(wanted / length)
            queries[:, part] *= np.float32(length / wanted)


def _trained(
    dataset: Dataset,
    histories: UserHistories,
    query_embeddings: npt.NDArray[np.float32],
    candidate_embeddings: npt.NDArray[np.float32],
    epochs: int,
    records: Sequence[EpochRecord],
) -> TrainedModel:
    """The towers, with an embedding for users without any interactions."""
    unknown = popular_query(candidate_embeddings, histories.candidate_counts)
    known = np.zeros(len(dataset.user_ids), bool)
    known[histories.active] = True
    query_embeddings[~known] = unknown
    return TrainedModel(
        query_tower=TableTower(
            dataset.user_ids, query_embeddings, unknown, known=known, name="query_tower"
        ),
        query_embeddings=query_embeddings,
        candidate_embeddings=candidate_embeddings,
        epochs=epochs,
        records=records,
    )


class UserSteps:
    """Trains a model on a part of the interactions.

    Attributes:
        histories: That part by user.
        model: What is trained.
    """

    def __init__(
        self,
        make: Callable[..., Model],
        histories: UserHistories,
        config: TrainConfig,
        workers: Workers | None = None,
    ) -> None:
        """Makes the model and its optimizer.

        Args:
            make: Makes the model; takes the generator `random` by name.
            histories: What it is trained on.
            config: How.
            workers: Processes that share the batches out; None for this one alone.
        """
        self._workers = workers or alone()
        self._config = config
        self.histories = histories
        # Made outside of the strategy, all workers draw the same numbers.
        random = tf.random.Generator.from_seed(config.seed)
        with self._workers.strategy.scope():
            self.model = make(random=random)
            self._optimizer = make_optimizer(
                config.optimizer, config.learning_rate, lazy=self.model.is_sampled
            )
            # It would make its variables at its first step; a checkpoint needs them before.
            self._optimizer._create_all_weights(self.model.trainable_variables)
        self._step = self._make_step()

    @classmethod
    def of_data(
        cls,
        dataset: Dataset,
        interactions: npt.NDArray[np.int64],
        model_config: ModelConfig,
        config: TrainConfig,
        workers: Workers | None = None,
    ) -> "UserSteps":
        """Trains a new model on some interactions."""
        histories = UserHistories(dataset, interactions)
        make = partial(UserSoftmaxModel, dataset, histories, model_config, config)
        return cls(make, histories, config, workers)

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
        validate: Callable[[], float] | None = None,
    ) -> list[EpochRecord]:
        """Trains for some epochs, or until the validation part has had enough."""
        per_epoch = math.ceil(len(self.histories.active) / self._config.batch_size)
        with Summaries(self._config.tensorboard) as summaries:
            return loop.run(
                epochs,
                saved=saved,
                validate=validate,
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


def _look(model: Model, dataset: Dataset, split: Split, seed: int) -> float:
    """NDCG on the validation part, or on some of its users."""
    judged = split.validation
    users = np.unique(dataset.user_positions[judged])
    if len(users) > _VALIDATION_USERS:
        some = np.random.default_rng(seed).choice(users, _VALIDATION_USERS, replace=False)
        judged = judged[np.isin(dataset.user_positions[judged], some)]
    ranking = rank_held_out(
        inner_product_scorer(model.query_embeddings(), model.candidate_embeddings()),
        dataset,
        split,
        top_k=_VALIDATION_K,
        judged=judged,
        seen=split.training,
    )
    return at_k(ranking.ranks["seen_excluded"], [ranking.top_k])[f"ndcg@{ranking.top_k}"]
