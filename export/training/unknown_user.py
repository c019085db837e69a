"""The query embedding of unknown users."""

from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.histories import Histories
from shortlist.export.towers.shared import shared_tensor

__all__ = ["choose_half_life", "popular_query"]

_STEPS = 150
_HALF_LIVES = (1.0, 7.0, 30.0, 90.0, 365.0, 1000.0)  # days


def choose_half_life(training: Histories, validation: npt.NDArray[np.int32]) -> float | None:
    """Return the half-life in days with which past popularity tells later choices best.

    The likelihood of the validation part decides, with one more event, shared by all candidates.

    Args:
        training: Events with times.
        validation: Candidates of later events.

    Returns:
        Days; None if all events tell the same, whatever their age.
    """

    def likelihood(counts: npt.NDArray[np.number]) -> float:
        smooth = counts + 1.0 / len(counts)
        return float(np.log(smooth[validation] / smooth.sum()).mean())

    best, score = None, likelihood(training.popularity())
    for days in _HALF_LIVES:
        result = likelihood(training.popularity(days))
        if result > score:
            best, score = days, result
    return best


def popular_query(
    candidate_embeddings: npt.NDArray[np.float32], counts: npt.NDArray[np.number[Any]]
) -> npt.NDArray[np.float32]:
    """Query embedding whose softmax over the corpus is as close to popularity as possible.

    Maximises the likelihood of all interactions under a single query.

    Args:
        candidate_embeddings: `[n, d]`; the inner product with a query is the logit.
        counts: `[n]`, interactions of each candidate, or the sum of their weights.

    Returns:
        Float32 `[d]`.
    """
    candidates = shared_tensor(candidate_embeddings)
    shares = tf.constant((counts / counts.sum()).astype(np.float32))
    # The mean of the interacted candidates is a good direction to start from.
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
