"""Fits a linear rating head to finished towers."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split
from shortlist.export.towers.rating_head import LinearRatingHead
from shortlist.export.towers.rating_means import RatingMeans, fit_means, means_of, ratings_of, rmse

__all__ = ["fit_linear_head"]

Positions = npt.NDArray[np.int32]

_BATCH = 65_536
# Strength of the ridge regression, in ratings of candidates of mean length along one direction.
_STRENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0)
_STRENGTH = 6.0  # without a validation part
_SWEEPS = 3  # of tastes and means in turn; more sweeps change only the fourth digit
_USERS_TO_CHOOSE_BY = 5_000


def fit_linear_head(
    dataset: Dataset, split: Split, candidate_embeddings: npt.NDArray[np.float32]
) -> LinearRatingHead:
    """Fit the taste of each user by ridge regression on the embeddings of rated candidates.

    The towers do not change, so retrieval loses nothing. Means and tastes are fitted in turn,
    each to the residuals of the other. The validation part, if any, chooses the strength of
    the regression.

    Raises:
        ValueError: The data has no ratings.
    """
    means = fit_means(dataset, split)
    embeddings = candidate_embeddings.astype(np.float64)
    length = np.sqrt(np.mean(np.sum(embeddings**2, axis=1)))
    embeddings /= length
    strength = _STRENGTH
    if len(split.validation):
        strength = _choose_strength(dataset, split, means, embeddings)
    part = split.fitted
    users, candidates = dataset.user_positions[part], dataset.candidate_positions[part]
    for _ in range(_SWEEPS):
        residuals = _residuals(dataset, part, means)
        tastes = _ridge(users, candidates, residuals, embeddings, strength, len(dataset.user_ids))
        explained = _products(tastes, users, embeddings, candidates)
        means = means_of(dataset, part, means.strengths, explained=explained)
    return LinearRatingHead(means, tastes / length)


def _choose_strength(
    dataset: Dataset, split: Split, means: RatingMeans, embeddings: npt.NDArray[np.float64]
) -> float:
    """Return the strength that predicts the ratings of the validation part best.

    Only a sample of the users decides.
    """
    judged = split.validation
    some = np.unique(dataset.user_positions[judged])
    if len(some) > _USERS_TO_CHOOSE_BY:
        some = np.random.default_rng(0).choice(some, _USERS_TO_CHOOSE_BY, replace=False)
        judged = judged[np.isin(dataset.user_positions[judged], some)]
    means = means_of(dataset, split.training, means.strengths)
    part = split.training[np.isin(dataset.user_positions[split.training], some)]
    residuals = _residuals(dataset, part, means)
    users, candidates = dataset.user_positions[judged], dataset.candidate_positions[judged]

    def error(strength: float) -> float:
        tastes = _ridge(
            dataset.user_positions[part],
            dataset.candidate_positions[part],
            residuals,
            embeddings,
            strength,
            len(dataset.user_ids),
        )
        explained = _products(tastes, users, embeddings, candidates)
        return rmse(explained, _residuals(dataset, judged, means))

    return min(_STRENGTHS, key=error)


def _residuals(
    dataset: Dataset, part: npt.NDArray[np.int64], means: RatingMeans
) -> npt.NDArray[np.float64]:
    """Ratings of some interactions minus the means."""
    users, candidates = dataset.user_positions[part], dataset.candidate_positions[part]
    biases = means.user_bias[users] + means.candidate_bias[candidates]
    return ratings_of(dataset)[part].astype(np.float64) - means.mean - biases


def _ridge(
    users: Positions,
    candidates: Positions,
    targets: npt.NDArray[np.float64],
    embeddings: npt.NDArray[np.float64],
    strength: float,
    num_users: int,
) -> npt.NDArray[np.float64]:
    """Ridge regression per user, `[num_users, d]`, of targets on candidate embeddings."""
    weights = np.zeros((num_users, embeddings.shape[1]))
    places = Pairs.by_row(users, np.arange(len(users)), num_rows=num_users)
    for user in np.flatnonzero(places.counts).tolist():
        own = places.of(user)
        features, target = embeddings[candidates[own]], targets[own]
        if len(own) < features.shape[1]:  # as many equations as ratings, by the kernel trick
            kernel = features @ features.T
            kernel.flat[:: len(own) + 1] += strength
            weights[user] = features.T @ np.linalg.solve(kernel, target)
        else:
            moments = features.T @ features
            moments.flat[:: len(moments) + 1] += strength
            weights[user] = np.linalg.solve(moments, features.T @ target)
    return weights


def _products(
    tastes: npt.NDArray[np.float64],
    users: Positions,
    embeddings: npt.NDArray[np.float64],
    candidates: Positions,
) -> npt.NDArray[np.float64]:
    """Inner products `[m]` of the tastes of users with candidates, in batches."""
    products = np.empty(len(users))
    for start in range(0, len(users), _BATCH):
        batch = slice(start, start + _BATCH)
        products[batch] = (tastes[users[batch]] * embeddings[candidates[batch]]).sum(axis=1)
    return products
