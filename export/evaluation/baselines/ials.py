"""iALS: matrix factorisation of implicit feedback, by alternating least squares."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.evaluation.baselines.types import Score, Settings

__all__ = ["fit_ials", "solve_rows"]

_ITERATIONS = 10  # 16 gain less than 0.001 on validation parts
_STANDARD_DEVIATION = 0.1  # of the initial factors, times 1 / sqrt(dimension)
_CELLS_PER_BATCH = 4_000_000


def fit_ials(training: Histories, settings: Settings) -> Score:
    """Matrix factorisation of Hu, Koren, Volinsky 2008, as Rendle et al. 2022 regularise it.

    The factors minimise, with S the pairs of a user and a candidate that interacted,

        sum over S of (1 - <u, c>)^2 + `alpha` * sum over all pairs of <u, c>^2
        + sum over all users and candidates of l * |factors|^2

    where l is `regularization` * (n / `alpha` + N) for a user with n of N candidates, or a
    candidate with n of N users. Rendle et al.'s weight is this `regularization` / `alpha`;
    written like this, the best value of one hardly depends on that of the other. A history is
    scored by the factors that the half-step for users gives it.
    """
    alpha = settings["alpha"]
    weights = {"alpha": alpha, "regularization": settings["regularization"] / alpha}
    by_user = training.distinct()
    by_candidate = Pairs.by_row(
        by_user.columns,
        np.repeat(np.arange(by_user.num_rows), by_user.counts),
        num_rows=training.num_candidates,
    )
    dimension = int(settings["dimension"])
    random = np.random.default_rng(int(settings["seed"]))
    candidates = random.normal(
        0.0, _STANDARD_DEVIATION / np.sqrt(dimension), (training.num_candidates, dimension)
    ).astype(np.float32)
    for _ in range(_ITERATIONS):
        users = solve_rows(by_user, candidates, **weights)
        candidates = solve_rows(by_candidate, users, **weights)

    def score(histories: Histories, settings: Settings) -> npt.NDArray[np.float32]:
        return solve_rows(histories.distinct(), candidates, **weights) @ candidates.T

    return score


def solve_rows(
    rows: Pairs, factors: npt.NDArray[np.float32], *, alpha: float, regularization: float
) -> npt.NDArray[np.float32]:
    """Half-step: the best factors of each row, given those of the columns.

    With G = F'F over all N columns, V the factors of the row's n columns and
    l = `regularization` * (n + `alpha` * N), solves (V'V + alpha G + l I) x = V' 1. In the
    eigenbasis of G, the matrix is V'V + D with D diagonal, so that
    x = D^-1 V' (I + V D^-1 V')^-1 1 needs only a system of size n for rows with fewer columns
    than dimensions.

    Args:
        rows: Distinct columns of each row.
        factors: float32 `[num_columns, dimension]`.
        alpha: Weight of all pairs.
        regularization: Weight of squared lengths, per interaction.

    Returns:
        float32 `[num_rows, dimension]`.
    """
    from threadpoolctl import threadpool_limits

    # The products are many and small: threads of BLAS would only wait for each other.
    with threadpool_limits(1, "blas"):
        return _solve_rows(rows, factors, alpha, regularization)


def _solve_rows(
    rows: Pairs, factors: npt.NDArray[np.float32], alpha: float, regularization: float
) -> npt.NDArray[np.float32]:
    dimension = factors.shape[1]
    values, basis = np.linalg.eigh(factors.T @ factors)
    rotated = np.vstack([factors @ basis, np.zeros((1, dimension), np.float32)])
    solved: npt.NDArray[np.float32] = np.zeros((rows.num_rows, dimension), np.float32)
    counts = rows.counts
    # Rows of similar length are solved together, filled up with the zero row.
    order = np.argsort(counts, kind="stable")[np.count_nonzero(counts == 0) :]
    start = 0
    while start < len(order):
        width = int(counts[order[start]] * 1.25)
        size = max(_CELLS_PER_BATCH // (max(width, 8) * dimension), 1)
        stop = min(int(np.searchsorted(counts[order], width, side="right")), start + size)
        part = order[start:stop]
        columns = np.full((len(part), counts[part].max()), len(factors), np.int64)
        places, entries = rows.cells(part)
        columns[places, entries - rows.starts[part][places]] = rows.columns[entries]
        near = rotated[columns]
        strength = regularization * (counts[part] + alpha * len(factors))
        diagonal = (alpha * values + strength[:, None]).astype(np.float32)
        solved[part] = _solve(near, diagonal)
        start = stop
    return solved @ basis.T


def _solve(
    near: npt.NDArray[np.float32], diagonal: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Solve (V'V + D) x = V' 1 for `[b, n, d]` V and `[b, d]` diagonals of D."""
    _, count, dimension = near.shape
    if count < dimension:
        scaled = near / diagonal[:, None]
        system = scaled @ near.transpose(0, 2, 1)
        system[:, np.arange(count), np.arange(count)] += 1.0
        weights = np.linalg.solve(system, np.ones((len(near), count, 1), np.float32))
        return (scaled.transpose(0, 2, 1) @ weights)[..., 0]
    gram = near.transpose(0, 2, 1) @ near
    gram[:, np.arange(dimension), np.arange(dimension)] += diagonal
    return np.linalg.solve(gram, near.sum(axis=1)[..., None])[..., 0]
