"""Ratings by means per user and candidate: fallback of the rating heads, and their baseline."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split

__all__ = ["RatingMeans", "fit_means", "means_of", "ratings_of", "rmse"]

# Shrinkage of users' and of candidates' biases: the number of extra ratings, each equal to
# the mean, that every one of them counts in addition to the real ones.
Strengths = tuple[float, float]

_STRENGTHS: Strengths = (5.0, 3.0)
_USER_STRENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0)
_CANDIDATE_STRENGTHS = (1.0, 2.0, 3.0, 5.0, 10.0)
_SWEEPS = 10


@dataclass(frozen=True, kw_only=True)
class RatingMeans:
    """Mean of all ratings, and the bias of each user and candidate.

    Attributes:
        mean: Mean of the fitted ratings.
        user_bias: float64 `[num_users]`, 0 without ratings.
        candidate_bias: float64 `[num_candidates]`, 0 without ratings.
        lowest: Lowest rating; predictions are not lower.
        highest: Highest rating; predictions are not higher.
        strengths: Shrinkage of the biases towards 0.
    """

    mean: float
    user_bias: npt.NDArray[np.float64]
    candidate_bias: npt.NDArray[np.float64]
    lowest: float
    highest: float
    strengths: Strengths

    def predict(
        self, users: npt.NDArray[np.int32], candidates: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float64]:
        """Ratings float64 `[n]` of positions `[n]`: the mean plus both biases."""
        raw = self.mean + self.user_bias[users] + self.candidate_bias[candidates]
        return np.clip(raw, self.lowest, self.highest)

    def error(self, dataset: Dataset, part: npt.NDArray[np.int64]) -> float:
        """Root mean squared error on the ratings of some interactions."""
        predicted = self.predict(dataset.user_positions[part], dataset.candidate_positions[part])
        return rmse(predicted, ratings_of(dataset)[part])


def ratings_of(dataset: Dataset) -> npt.NDArray[np.float32]:
    """Ratings float32 `[num_interactions]`.

    Raises:
        ValueError: The data has none.
    """
    if dataset.ratings is None:
        raise ValueError(
            f"{dataset.name} has no ratings to train a rating head on; name their column with "
            "--rating-column, or leave rating_weight at 0"
        )
    return dataset.ratings


def fit_means(dataset: Dataset, split: Split) -> RatingMeans:
    """Fit means to the fitted part; the validation part, if any, chooses the strengths.

    Raises:
        ValueError: The data has no ratings.
    """
    strengths = _STRENGTHS
    if len(split.validation):

        def error(pair: Strengths) -> float:
            return means_of(dataset, split.training, pair).error(dataset, split.validation)

        strengths = min(itertools.product(_USER_STRENGTHS, _CANDIDATE_STRENGTHS), key=error)
    return means_of(dataset, split.fitted, strengths)


def means_of(
    dataset: Dataset,
    part: npt.NDArray[np.int64],
    strengths: Strengths,
    *,
    explained: npt.NDArray[np.float64] | None = None,
) -> RatingMeans:
    """Fit means to some interactions: each bias is the shrunk mean of the residuals.

    Args:
        dataset: Interactions.
        part: Positions int64 `[m]` of those to fit.
        strengths: Shrinkage of the biases of users and of candidates.
        explained: float64 `[m]`, share of each rating that another model already explains.
    """
    ratings = ratings_of(dataset)[part].astype(np.float64)
    lowest, highest = float(ratings.min()), float(ratings.max())
    if explained is not None:
        ratings -= explained
    users, candidates = dataset.user_positions[part], dataset.candidate_positions[part]
    num_users, num_candidates = len(dataset.user_ids), len(dataset.candidate_ids)
    user_counts = np.bincount(users, minlength=num_users) + strengths[0]
    candidate_counts = np.bincount(candidates, minlength=num_candidates) + strengths[1]
    mean = float(ratings.mean())
    user_bias = np.zeros(num_users)
    candidate_bias = np.zeros(num_candidates)
    for _ in range(_SWEEPS):
        left = ratings - mean - user_bias[users]
        candidate_bias = np.bincount(candidates, left, minlength=num_candidates) / candidate_counts
        left = ratings - mean - candidate_bias[candidates]
        user_bias = np.bincount(users, left, minlength=num_users) / user_counts
    return RatingMeans(
        mean=mean,
        user_bias=user_bias,
        candidate_bias=candidate_bias,
        lowest=lowest,
        highest=highest,
        strengths=strengths,
    )


def rmse(predicted: npt.NDArray[np.floating], ratings: npt.NDArray[np.floating]) -> float:
    """Root mean squared difference of two arrays `[n]`."""
    return float(np.sqrt(np.mean((np.asarray(ratings, np.float64) - predicted) ** 2)))
