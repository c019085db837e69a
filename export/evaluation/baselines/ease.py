"""EASE: a linear model between candidates, in closed form."""

from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories
from shortlist.export.evaluation.baselines.types import Score, Settings

__all__ = ["MOST_FOR_EASE", "fit_ease"]

# EASE inverts a dense matrix of the number of users or candidates, whichever is smaller.
MOST_FOR_EASE = 20_000


def fit_ease(training: Histories, settings: Settings) -> Score:
    """EASE (Steck 2019), with weights that decay along the history.

    With X the binary interactions and P = (X'X + l I)^-1, a history q has the scores q B with
    B = I - P / diag(P) by columns. As P = (I - X' (XX' + l I)^-1 X) / l, the smaller of the two
    Gram matrices is inverted. An event of q weighs 0.5^(number of later ones / `half_life`).

    Args:
        training: Histories whose candidates form X.
        settings: `lambda`; the result takes `half_life`, by default infinite.

    Raises:
        ValueError: There are too many users and candidates.
    """
    matrix = training.matrix()
    size = min(matrix.shape)
    if size > MOST_FOR_EASE:
        raise ValueError(
            f"EASE inverts a {size} x {size} matrix, and {MOST_FOR_EASE} is its limit; "
            "use the other baselines"
        )
    if matrix.shape[1] == size:
        return _by_candidates(matrix, settings["lambda"])
    return _by_users(matrix, settings["lambda"])


def _by_candidates(matrix: Any, weight: float) -> Score:
    between = _inverse(matrix.T @ matrix, weight)
    between /= -np.diag(between)
    np.fill_diagonal(between, 0.0)

    def score(histories: Histories, settings: Settings) -> npt.NDArray[np.float32]:
        return histories.matrix(settings.get("half_life", np.inf)) @ between

    return score


def _by_users(matrix: Any, weight: float) -> Score:
    inverse = _inverse(matrix @ matrix.T, weight)
    # The diagonal of l P; exactly 1 for a candidate without interactions.
    diagonal = 1.0 - np.asarray(matrix.T.multiply(matrix.T @ inverse).sum(axis=1)).ravel()

    def score(histories: Histories, settings: Settings) -> npt.NDArray[np.float32]:
        query = histories.matrix(settings.get("half_life", np.inf))
        projected = (matrix.T @ ((query @ matrix.T) @ inverse).T).T
        return np.asarray((projected - query) / diagonal + query, np.float32)

    return score


def _inverse(gram: Any, weight: float) -> npt.NDArray[np.float32]:
    """Inverse of a sparse Gram matrix plus `weight` on its diagonal.

    Cholesky takes a third of the time of `np.linalg.inv`.
    """
    from scipy.linalg import lapack

    dense = np.asfortranarray(gram.toarray(), np.float32)
    dense[np.diag_indices(len(dense))] += weight
    factor, _ = lapack.spotrf(dense, lower=True, overwrite_a=True)
    lower = np.tril(lapack.spotri(factor, lower=True, overwrite_c=True)[0])
    return lower + np.tril(lower, -1).T
