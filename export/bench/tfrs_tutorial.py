"""TFRS's basic retrieval tutorial as written, for comparison.

https://www.tensorflow.org/recommenders/examples/basic_retrieval: string look-ups in the
model, a cached `tf.data` pipeline of batches of 8192, `tfrs.Model.fit`, and top-K metrics
over the whole corpus in each training step.
"""

import time

import numpy as np

from shortlist.export._tf import tf, tfrs
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split

__all__ = ["train_tutorial"]

_DIMENSION = 32
_BATCH = 8192


class _TutorialModel(tfrs.Model):
    """`MovielensModel` of the tutorial."""

    def __init__(self, dataset: Dataset, *, metrics: bool) -> None:
        super().__init__()
        self.user_model = _tower(dataset.user_ids)
        self.movie_model = _tower(dataset.candidate_ids)
        movies = tf.data.Dataset.from_tensor_slices(list(dataset.candidate_ids))
        self.task = tfrs.tasks.Retrieval(
            metrics=tfrs.metrics.FactorizedTopK(candidates=movies.batch(128).map(self.movie_model))
            if metrics
            else None
        )

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Loss and metrics of one batch."""
        return self.task(
            self.user_model(features["user_id"]), self.movie_model(features["movie_title"])
        )


class _EpochTimes(tf.keras.callbacks.Callback):
    """Measures the time of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(time.monotonic() - self._start)


def train_tutorial(dataset: Dataset, split: Split, *, epochs: int, metrics: bool) -> list[float]:
    """Train as the tutorial does and return the seconds of each epoch.

    Args:
        dataset: Interactions.
        split: Training uses all but the held-out interactions.
        epochs: Number of epochs; the tutorial has 3.
        metrics: Compute top-K metrics in each step, as the tutorial does.
    """
    tf.random.set_seed(42)
    rows = split.fitted
    columns = {
        "movie_title": np.array(dataset.candidate_ids)[dataset.candidate_positions[rows]],
        "user_id": np.array(dataset.user_ids)[dataset.user_positions[rows]],
    }
    ratings = tf.data.Dataset.from_tensor_slices(columns).map(
        lambda row: {"movie_title": row["movie_title"], "user_id": row["user_id"]}
    )
    shuffled = ratings.shuffle(100_000, seed=42, reshuffle_each_iteration=False)
    train = shuffled.shuffle(100_000).batch(_BATCH).cache()
    model = _TutorialModel(dataset, metrics=metrics)
    model.compile(optimizer=tf.keras.optimizers.Adagrad(learning_rate=0.1))
    times = _EpochTimes()
    model.fit(train, epochs=epochs, verbose=0, callbacks=[times])
    return times.seconds


def _tower(ids: tuple[str, ...]) -> tf.keras.Sequential:
    return tf.keras.Sequential(
        [
            tf.keras.layers.StringLookup(vocabulary=list(ids), mask_token=None),
            tf.keras.layers.Embedding(len(ids) + 1, _DIMENSION),
        ]
    )
