"""Trains on batches of interactions with TFRS's retrieval task, as its tutorials do."""

import numpy as np

from export._tf import tf
from export.config import ModelConfig, TrainConfig
from export.data.dataset import Dataset
from export.model import RetrievalModel
from export.progress import Progress
from export.split import Split
from export.trained import EpochRecord, TrainedModel, popular_query

__all__ = ["train_on_interactions"]

_SHUFFLE_BUFFER = 1_000_000  # interactions; two int32 columns


def train_on_interactions(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    progress: Progress,
) -> TrainedModel:
    """A model trained on all that is not held out, for as many epochs as configured.

    Raises:
        ValueError: The loss stopped being a number.
    """
    tf.keras.utils.set_random_seed(config.seed)
    model = RetrievalModel(dataset, model_config)
    optimizers = {"adagrad": tf.keras.optimizers.Adagrad, "adam": tf.keras.optimizers.Adam}
    model.compile(optimizer=optimizers[config.optimizer](config.learning_rate))
    known = split.fitted
    per_epoch = -(-len(known) // config.batch_size)
    callbacks: list[tf.keras.callbacks.Callback] = [
        _ProgressCallback(progress, per_epoch * config.epochs, config.batch_size)
    ]
    if config.tensorboard is not None:
        callbacks.append(
            tf.keras.callbacks.TensorBoard(str(config.tensorboard), update_freq="epoch")
        )
    history = model.fit(
        _batches(dataset, known, config), epochs=config.epochs, verbose=0, callbacks=callbacks
    )
    losses = history.history["loss"]
    if not np.isfinite(losses[-1]):
        raise ValueError(
            f"training diverged: loss {losses[-1]} after {config.epochs} epochs; "
            f"lower learning_rate, now {config.learning_rate}"
        )
    candidate_embeddings = model.candidate_embeddings()
    counts = np.bincount(dataset.candidate_positions[known], minlength=len(dataset.candidate_ids))
    model.query_tower.set_unknown(popular_query(candidate_embeddings, counts, temperature=None))
    return TrainedModel(
        query_tower=model.query_tower,
        query_embeddings=model.query_embeddings(),
        candidate_embeddings=candidate_embeddings,
        epochs=config.epochs,
        records=[
            EpochRecord(epoch=epoch, loss=loss / config.batch_size)
            for epoch, loss in enumerate(losses, start=1)
        ],
    )


def _batches(dataset: Dataset, known: np.ndarray, config: TrainConfig) -> tf.data.Dataset:
    columns = {
        "user": dataset.user_positions[known],
        "candidate": dataset.candidate_positions[known],
    }
    return (
        tf.data.Dataset.from_tensor_slices(columns)
        .shuffle(min(len(known), _SHUFFLE_BUFFER), seed=config.seed)
        .batch(config.batch_size)
        .prefetch(2)
    )


class _ProgressCallback(tf.keras.callbacks.Callback):
    """Passes Keras's batches on to a `Progress`."""

    def __init__(self, progress: Progress, total: int, batch_size: int) -> None:
        super().__init__()
        self._progress = progress
        self._total = total
        self._batch_size = batch_size
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._done += 1
        loss = (logs or {}).get("loss", float("nan")) / self._batch_size
        self._progress.batches_done(self._done, self._total, loss)
