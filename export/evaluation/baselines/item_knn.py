"""Item-kNN: candidates that the same users had."""

from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories
from shortlist.export.evaluation.baselines.types import Score, Settings
from shortlist.export.evaluation.ranking import batches

__all__ = ["fit_item_knn"]

MOST_NEIGHBORS = 200
_CELLS_PER_BATCH = 16_000_000


def fit_item_knn(training: Histories, settings: Settings) -> Score:
    """Sum of the similarities to the candidates of a history (Deshpande, Karypis 2004).

    The similarity of candidates a and b is n_ab / (sqrt(n_a n_b) + `shrinkage`), with n_a and n_b
    users of each and n_ab users of both. For each candidate of the history, only its
    `neighbors` most similar ones score.
    """
    matrix = training.matrix()
    columns, similarities = _nearest(matrix, settings["shrinkage"])

    def score(histories: Histories, settings: Settings) -> npt.NDArray[np.float32]:
        from scipy.sparse import csr_matrix

        k = int(settings["neighbors"])
        near = csr_matrix(
            (
                similarities[:, :k].ravel(),
                columns[:, :k].ravel(),
                np.arange(len(columns) + 1) * columns[:, :k].shape[1],
            ),
            shape=(len(columns), len(columns)),
        )
        return (histories.matrix() @ near).toarray()

    return score


def _nearest(
    matrix: Any, shrinkage: float
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Nearest candidates of each candidate, best first, and their similarities."""
    lengths = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
    size = len(lengths)
    k = min(MOST_NEIGHBORS, size)
    columns = np.empty((size, k), np.int32)
    similarities = np.empty((size, k), np.float32)
    for start, stop in batches(size, _CELLS_PER_BATCH // size):
        common = (matrix.T[start:stop] @ matrix).toarray()
        # A candidate without users shares none: 0 / 1 instead of 0 / 0.
        common /= np.maximum(lengths[start:stop, None] * lengths + np.float32(shrinkage), 1.0)
        common[np.arange(stop - start), np.arange(start, stop)] = 0.0
        near = np.argpartition(-common, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(common, near, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        columns[start:stop] = np.take_along_axis(near, order, axis=1)
        similarities[start:stop] = np.take_along_axis(values, order, axis=1)
    return columns, similarities
