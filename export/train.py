"""Trains the two towers."""

import logging

import numpy as np

from export._tf import tf
from export.config import ModelConfig, TrainConfig
from export.data.dataset import Dataset
from export.model import RetrievalModel
from export.progress import Progress
from export.split import Split

__all__ = ["train"]

log = logging.getLogger(__name__)

_SHUFFLE_BUFFER = 1_000_000  # interactions; two int32 columns


def train(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
) -> RetrievalModel:
    """A model trained on the training part of `split`.

    The same data, configuration and seed give the same model on the same machine.

    Raises:
        ValueError: The loss stopped being a number.
    """
    tf.keras.utils.set_random_seed(config.seed)
    model = RetrievalModel(dataset, model_config)
    model.compile(optimizer=tf.keras.optimizers.Adagrad(config.learning_rate))
    batches = _batches(dataset, split, config)
    per_epoch = -(-len(split.training) // config.batch_size)
    callbacks: list[tf.keras.callbacks.Callback] = [
        _ProgressCallback(progress or Progress(), per_epoch * config.epochs, config.batch_size)
    ]
    if config.tensorboard is not None:
        callbacks.append(
            tf.keras.callbacks.TensorBoard(str(config.tensorboard), update_freq="epoch")
        )
    history = model.fit(batches, epochs=config.epochs, verbose=0, callbacks=callbacks)
    losses = history.history["loss"]
    log.info("loss by epoch: %s", ", ".join(f"{loss:.1f}" for loss in losses))
    if not np.isfinite(losses[-1]):
        raise ValueError(
            f"training diverged: loss {losses[-1]} after {config.epochs} epochs; "
            f"lower learning_rate, now {config.learning_rate}"
        )
    model.query_tower.set_unknown_to_mean()
    return model


def _batches(dataset: Dataset, split: Split, config: TrainConfig) -> tf.data.Dataset:
    columns = {
        "user": dataset.user_positions[split.training],
        "candidate": dataset.candidate_positions[split.training],
    }
    buffer = min(len(split.training), _SHUFFLE_BUFFER)
    return (
        tf.data.Dataset.from_tensor_slices(columns)
        .shuffle(buffer, seed=config.seed)
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
