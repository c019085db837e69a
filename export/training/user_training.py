"""The default recipe: trains on batches of users."""

import dataclasses
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import validation_questions
from shortlist.export.data.split import Split
from shortlist.export.evaluation.metrics import at_k
from shortlist.export.evaluation.ranking import inner_product_scorer, rank_answers
from shortlist.export.progress import Progress
from shortlist.export.towers.ids import TableTower
from shortlist.export.towers.trained import EpochRecord, TrainedModel
from shortlist.export.training.checkpoint import Checkpoint, Saved
from shortlist.export.training.loop import TrainingLoop
from shortlist.export.training.optimizers import make_optimizer
from shortlist.export.training.seen_last import SeenLastModel
from shortlist.export.training.unknown_user import popular_query
from shortlist.export.training.user_scores import UserHistories
from shortlist.export.training.user_softmax import UserSoftmaxModel, pair_dimensions
from shortlist.export.training.workers import Workers, alone

__all__ = ["UserSteps", "train_on_users"]

log = logging.getLogger(__name__)

Table = npt.NDArray[np.float32]
Model = UserSoftmaxModel | SeenLastModel

_VALIDATION_K = 100
_VALIDATION_USERS = 5_000  # a sample is enough to stop by
_STEPS_BETWEEN_LOOKS = 50  # an epoch of a small data set is too short to validate after each
# Names of phases in progress and checkpoints.
_SEARCH = "search"  # for the number of epochs
_FIT = "fit"  # the final model
_SEEN_LAST = "seen last"  # its second stage, if configured


def train_on_users(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
    *,
    steps_between_looks: int = _STEPS_BETWEEN_LOOKS,
) -> TrainedModel:
    """Train a model on the fitted part; see `train`.

    With a validation part, a first training without it finds the number of epochs with the
    best NDCG@100; the final model is trained for as many epochs on both parts. A second stage
    follows if the configuration asks for one. `steps_between_looks` is the number of training
    steps between two validations, rounded to whole epochs.
    """
    saved = checkpoint.restored() if checkpoint is not None else None
    epochs, records = config.epochs, []
    if saved is not None and saved.phase != _SEARCH:
        epochs = saved.carried["epochs"]
        records = [EpochRecord(**record) for record in saved.carried["records"]]
    elif len(split.validation):
        search = UserSteps.of_data(dataset, split.training, model_config, config, workers)
        loop = search.loop(progress, _SEARCH, checkpoint)
        epochs, records = _search(search, loop, dataset, split, saved, steps_between_looks)
        del search, loop
        gc.collect()  # frees the tables and their moments before the next ones are allocated
    carried = {"epochs": epochs, "records": [dataclasses.asdict(record) for record in records]}
    if saved is not None and saved.phase == _SEEN_LAST:
        dimensions = model_config.embedding_dim
        users = np.zeros([len(dataset.user_ids), dimensions], np.float32)
        candidates = np.zeros([len(dataset.candidate_ids), dimensions], np.float32)
        histories = UserHistories(dataset, split.fitted)
    else:
        final = UserSteps.of_data(dataset, split.fitted, model_config, config, workers)
        fitted = final.loop(progress, _FIT, checkpoint, carried).run(epochs, saved=saved)
        records, histories = records or fitted, final.histories
        carried["records"] = [dataclasses.asdict(record) for record in records]
        users, candidates = final.model.query_embeddings(), final.model.candidate_embeddings()
        del final
        gc.collect()
    if config.seen_last_epochs:
        make = partial(SeenLastModel, histories, users, candidates, config)
        second = UserSteps(make, histories, config, workers)
        loop = second.loop(progress, _SEEN_LAST, checkpoint, carried)
        loop.run(config.seen_last_epochs, saved=saved)
        users, candidates = second.model.query_embeddings(), second.model.candidate_embeddings()
    _rescale(users, candidates, pair_dimensions(model_config)[0])
    return _trained(dataset, histories, users, candidates, epochs, records)


def _search(
    steps: "UserSteps",
    loop: TrainingLoop,
    dataset: Dataset,
    split: Split,
    saved: Saved | None,
    steps_between_looks: int,
) -> tuple[int, list[EpochRecord]]:
    """Return the epoch after which the validation part was ranked best, and all records."""
    config = steps.config
    records = loop.run(
        config.epochs,
        saved=saved,
        validate=lambda: _validate(steps.model, dataset, split, config.seed),
        epochs_between_looks=max(1, round(steps_between_looks / loop.batches)),
    )
    looks = [record for record in records if record.validation is not None]
    epoch = max(looks, key=lambda record: record.validation or 0.0).epoch
    log.info("best NDCG@%d on the validation part after %d epochs", _VALIDATION_K, epoch)
    return epoch, records


def _rescale(queries: Table, candidates: Table, cosines: int) -> None:
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


def _trained(
    dataset: Dataset,
    histories: UserHistories,
    query_embeddings: npt.NDArray[np.float32],
    candidate_embeddings: npt.NDArray[np.float32],
    epochs: int,
    records: Sequence[EpochRecord],
) -> TrainedModel:
    """Return the towers, with one embedding for users without interactions."""
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
        interactions: npt.NDArray[np.int64],
        model_config: ModelConfig,
        config: TrainConfig,
        workers: Workers | None = None,
    ) -> "UserSteps":
        """Create the steps of a new model on some interactions."""
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
        """Return the loop over the batches of users."""
        return TrainingLoop(
            self,
            self.histories.active,
            self.config,
            progress=progress,
            phase=phase,
            checkpoint=checkpoint,
            carried=carried,
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


def _validate(model: Model, dataset: Dataset, split: Split, seed: int) -> float:
    """NDCG on the validation part, or on a sample of its questions."""
    questions = validation_questions(dataset, split, most=_VALIDATION_USERS, seed=seed)
    queries = model.query_embeddings()[questions.users]
    scorer = inner_product_scorer(queries, model.candidate_embeddings())
    ranking = rank_answers(scorer, questions, top_k=_VALIDATION_K)
    ranks = ranking.ranks["seen_excluded"]
    if not len(ranks):  # all of them repeat a candidate of the training part
        ranks = ranking.ranks["seen_kept"]
    return at_k(ranks, [ranking.top_k])[f"ndcg@{ranking.top_k}"]
