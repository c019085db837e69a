"""What training leaves behind, whichever recipe it followed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.towers.ids import IdTower, TableTower
from shortlist.export.towers.rating_head import RatingHead

__all__ = ["EpochRecord", "TrainedModel", "popular_query"]

_STEPS = 150


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: From 1.
        loss: Mean over its batches.
        validation: NDCG@100 on the validation part, seen excluded; None where it was not
            looked at.
    """

    epoch: int
    loss: float
    validation: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """Two towers, ready to be indexed and served.

    Attributes:
        query_tower: From user ids to embeddings, with one for strangers.
        query_embeddings: Float32 `[num_users, d]`, in the data set's order.
        candidate_embeddings: Float32 `[num_candidates, d]`, in the data set's order.
        epochs: How long the final model was trained.
        records: Course of the training that chose the number of epochs.
        rating_head: Predicts ratings; None where none was asked for.
        similar_queries: Float32 `[num_candidates, d]`, with what to look for candidates that
            go with each; None where its own embedding does.
    """

    query_tower: IdTower | TableTower
    query_embeddings: npt.NDArray[np.float32]
    candidate_embeddings: npt.NDArray[np.float32]
    epochs: int
    records: Sequence[EpochRecord]
    rating_head: RatingHead | None = None
    similar_queries: npt.NDArray[np.float32] | None = None


def popular_query(
    candidate_embeddings: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Query embedding for strangers: its softmax is as near to popularity as one can be.

    Maximises the likelihood of all interactions under a single query.

    Args:
        candidate_embeddings: `[n, d]`, whose inner product with a query is the logit.
        counts: `[n]`, interactions of each candidate.

    Returns:
        Float32 `[d]`.
    """
    candidates = tf.constant(candidate_embeddings)
    shares = tf.constant((counts / counts.sum()).astype(np.float32))
    # The mean of what was interacted with points the right way to begin with.
    start = tf.linalg.matvec(candidates, shares, transpose_a=True)
    query = tf.Variable(tf.math.l2_normalize(start, axis=0))
    optimizer = tf.keras.optimizers.legacy.Adam(0.05)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            logits = tf.linalg.matvec(candidates, query)
            loss = -tf.reduce_sum(shares * tf.nn.log_softmax(logits))
        optimizer.apply_gradients([(tape.gradient(loss, query), query)])

    for _ in range(_STEPS):
        step()
    return np.asarray(query, np.float32)
