"""Trains on batches of users: the default recipe."""

import logging
import math

import numpy as np
import numpy.typing as npt

from export._tf import tf
from export.config import ModelConfig, TrainConfig
from export.data.dataset import Dataset
from export.history import UserHistories
from export.metrics import at_k
from export.progress import Progress
from export.ranking import inner_product_scorer, rank_held_out
from export.split import Split
from export.towers import TableTower
from export.trained import EpochRecord, TrainedModel, popular_query
from export.user_softmax import UserSoftmaxModel

__all__ = ["train_on_users"]

log = logging.getLogger(__name__)

_VALIDATION_K = 100
_VALIDATION_USERS = 5_000  # a sample is enough to stop by
_STEPS_BETWEEN_LOOKS = 50  # an epoch of a small data set is too little to look after


def train_on_users(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
) -> TrainedModel:
    """A model trained on all that is not held out.

    Where there is a validation part, a first training without it finds the number of
    epochs with the best NDCG@100; the final model is trained as long, on both parts.

    Raises:
        ValueError: The loss stopped being a number.
    """
    epochs, records = config.epochs, []
    if len(split.validation):
        search = _Training(dataset, split.training, model_config, config, progress)
        records = search.run(config.epochs, validation=split)
        looks = [record for record in records if record.validation is not None]
        epochs = max(looks, key=lambda record: record.validation or 0.0).epoch
        log.info("best NDCG@%d on the validation part after %d epochs", _VALIDATION_K, epochs)
    final = _Training(dataset, split.fitted, model_config, config, progress)
    fitted = final.run(epochs)
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


class _Training:
    """One model on one part of the interactions."""

    def __init__(
        self,
        dataset: Dataset,
        interactions: npt.NDArray[np.int64],
        model_config: ModelConfig,
        config: TrainConfig,
        progress: Progress,
    ) -> None:
        self._dataset = dataset
        self._config = config
        self._progress = progress
        self.histories = UserHistories(dataset, interactions)
        self.model = UserSoftmaxModel(dataset, self.histories, model_config, config)
        optimizers = {
            "adam": tf.keras.optimizers.legacy.Adam,
            "adagrad": tf.keras.optimizers.legacy.Adagrad,
        }
        self._optimizer = optimizers[config.optimizer](config.learning_rate)
        self._writer = None
        if config.tensorboard is not None:
            self._writer = tf.summary.create_file_writer(str(config.tensorboard))

    def run(self, epochs: int, *, validation: Split | None = None) -> list[EpochRecord]:
        """Trains for some epochs, or until the validation part has had enough."""
        random = np.random.default_rng(self._config.seed)
        per_epoch = math.ceil(len(self.histories.active) / self._config.batch_size)
        between = max(1, round(_STEPS_BETWEEN_LOOKS / per_epoch))
        step = self._make_step()
        records: list[EpochRecord] = []
        best, since = -1.0, 0
        for epoch in range(1, epochs + 1):
            order = random.permutation(self.histories.active)
            losses = []
            for batch in np.array_split(order, per_epoch):
                losses.append(step(tf.constant(batch)))
                done = (epoch - 1) * per_epoch + len(losses)
                if done % 10 == 0 or len(losses) == per_epoch:
                    self._progress.batches_done(done, epochs * per_epoch, float(losses[-1]))
            loss = float(np.mean([float(one) for one in losses]))
            if not math.isfinite(loss):
                raise ValueError(
                    f"training diverged: loss {loss} in epoch {epoch}; "
                    f"lower learning_rate, now {self._config.learning_rate}"
                )
            value = None
            if validation is not None and (epoch % between == 0 or epoch == epochs):
                value = self._validate(validation)
                best, since = (value, 0) if value > best else (best, since + 1)
            records.append(EpochRecord(epoch=epoch, loss=loss, validation=value))
            self._summarise(records[-1])
            if since >= self._config.patience:
                break
        return records

    def _make_step(self) -> "tf.types.experimental.GenericFunction":
        variables = self.model.trainable_variables

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
        def step(users: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = self.model.loss(users)
            gradients = tape.gradient(loss, variables)
            self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return loss

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

    def _summarise(self, record: EpochRecord) -> None:
        if self._writer is None:
            return
        with self._writer.as_default(step=record.epoch):
            tf.summary.scalar("loss", record.loss)
            if record.validation is not None:
                tf.summary.scalar(f"validation_ndcg@{_VALIDATION_K}", record.validation)
        self._writer.flush()
