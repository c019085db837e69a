"""Baselines to compare a model with: popularity, EASE and iALS."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.metrics import at_k
from shortlist.export.evaluation.ranking import Scorer, inner_product_scorer, rank_held_out

__all__ = ["BASELINES", "Baseline", "fit_baseline", "fit_best"]

log = logging.getLogger(__name__)

# EASE inverts a dense matrix of the number of users or candidates, whichever is smaller.
MOST_FOR_EASE = 20_000
_EASE_LAMBDAS = (50.0, 100.0, 200.0, 500.0, 1000.0)
# (factors, regularization, alpha): a little tuning, as by hand.
_IALS_SETTINGS = ((32, 30.0, 3.0), (64, 10.0, 1.0), (64, 60.0, 5.0), (64, 100.0, 10.0))
_IALS_ITERATIONS = 15


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        name: One of `BASELINES`.
        settings: Settings chosen on the validation part.
        scorer: Scores of the baseline.
    """

    name: str
    settings: Mapping[str, float]
    scorer: Scorer


Fit = Callable[[Dataset, npt.NDArray[np.int64], Mapping[str, float]], Scorer]


def fit_baseline(name: str, dataset: Dataset, split: Split, *, seed: int = 0) -> Baseline:
    """Fit a baseline to the fitted part; see `fit_best` for its settings.

    Args:
        name: One of `BASELINES`.
        dataset: Interactions that `split` refers to.
        split: Parts of the interactions.
        seed: Random seed of the initial values.

    Raises:
        ValueError: The name is unknown, or there are too many users and candidates for EASE.
        ModuleNotFoundError: iALS needs the package `implicit`.
    """
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
    return fit_best(name, *BASELINES[name], dataset, split, seed=seed)


def fit_best(
    name: str,
    fit: Fit,
    choices: Sequence[Mapping[str, float]],
    dataset: Dataset,
    split: Split,
    *,
    seed: int,
) -> Baseline:
    """Fit a baseline with the settings that give the best hit rate@100 on the validation part.

    Seen candidates are excluded. Without a validation part, the middle one of `choices` is used.
    """
    chosen: Mapping[str, float] = {**choices[len(choices) // 2], "seed": seed}
    if len(choices) > 1 and len(split.validation):
        judged = []
        for choice in choices:
            scorer = fit(dataset, split.training, {**choice, "seed": seed})
            ranking = rank_held_out(
                scorer, dataset, split, top_k=100, judged=split.validation, seen=split.training
            )
            rate = at_k(ranking.ranks["seen_excluded"], [100])["hit_rate@100"]
            log.info("%s with %s: validation hit rate@100 %.4f", name, choice, rate)
            judged.append((rate, choice))
        chosen = {**max(judged, key=lambda pair: pair[0])[1], "seed": seed}
    scorer = fit(dataset, split.fitted, chosen)
    settings = {key: value for key, value in chosen.items() if key != "seed"}
    return Baseline(name=name, settings=settings, scorer=scorer)


def _popularity(
    dataset: Dataset, rows: npt.NDArray[np.int64], settings: Mapping[str, float]
) -> Scorer:
    """The same scores for all users: the number of interactions of each candidate."""
    counts = dataset.candidate_counts(rows).astype(np.float32)

    def score(users: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        return np.repeat(counts[None], len(users), axis=0)

    return score


def _ease(dataset: Dataset, rows: npt.NDArray[np.int64], settings: Mapping[str, float]) -> Scorer:
    """EASE (Steck 2019): the linear item-to-item model with a zero diagonal, closed form.

    With X the binary interactions and P = (X'X + l I)^-1, the scores are X B with
    B = I - P / diag(P) by columns. As X P = (XX' + l I)^-1 X, the smaller of the two
    Gram matrices is inverted.
    """
    matrix = _matrix(dataset, rows)
    num_users, num_candidates = matrix.shape
    size = min(num_users, num_candidates)
    if size > MOST_FOR_EASE:
        raise ValueError(
            f"EASE inverts a {size} x {size} matrix, and {MOST_FOR_EASE} is its limit; "
            "use the other baselines"
        )
    weight = settings["lambda"]
    if num_candidates <= num_users:
        gram = (matrix.T @ matrix).toarray().astype(np.float64)
        gram[np.diag_indices(size)] += weight
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)[None]
        weights[np.diag_indices(size)] = 0.0
        between = weights.astype(np.float32)

        def score(users: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
            return np.asarray(matrix[users] @ between, np.float32)

        return score
    gram = (matrix @ matrix.T).toarray().astype(np.float64)
    gram[np.diag_indices(size)] += weight
    inverse = np.linalg.inv(gram)
    # diag(P) = (1 - diag(X' (XX' + l I)^-1 X)) / l, one column of X at a time.
    spread = np.asarray(matrix.T @ inverse)
    diagonal = (1.0 - np.asarray(matrix.T.multiply(spread).sum(axis=1)).ravel()) / weight
    inverse32, diagonal32 = inverse.astype(np.float32), diagonal.astype(np.float32)

    def score_by_users(users: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        projected = np.asarray((matrix.T @ inverse32[users].T).T)
        return np.asarray(matrix[users].toarray() - projected / diagonal32[None], np.float32)

    return score_by_users


def _ials(dataset: Dataset, rows: npt.NDArray[np.int64], settings: Mapping[str, float]) -> Scorer:
    """Matrix factorisation of implicit feedback (Hu, Koren, Volinsky 2008), by `implicit`."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(
            "iALS needs the package implicit; install shortlist[baselines]"
        ) from exc
    # implicit has its own threads, which those of BLAS would slow down.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=int(settings["factors"]),
            regularization=settings["regularization"],
            alpha=settings["alpha"],
            iterations=_IALS_ITERATIONS,
            random_state=int(settings["seed"]),
        )
        model.fit(_matrix(dataset, rows), show_progress=False)
    return inner_product_scorer(np.asarray(model.user_factors), np.asarray(model.item_factors))


def _matrix(dataset: Dataset, rows: npt.NDArray[np.int64]) -> Any:
    """Sparse float32 `[num_users, num_candidates]` with a 1 for each interaction."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(
        (
            np.ones(len(rows), np.float32),
            (dataset.user_positions[rows], dataset.candidate_positions[rows]),
        ),
        shape=(len(dataset.user_ids), len(dataset.candidate_ids)),
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


BASELINES: Mapping[str, tuple[Fit, tuple[Mapping[str, float], ...]]] = {
    "popularity": (_popularity, ({},)),
    "ease": (_ease, tuple({"lambda": weight} for weight in _EASE_LAMBDAS)),
    "ials": (
        _ials,
        tuple(
            {"factors": factors, "regularization": regularization, "alpha": alpha}
            for factors, regularization, alpha in _IALS_SETTINGS
        ),
    ),
}
