"""Ratings by means per user and candidate: what a rating head falls back to and has to beat."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split

__all__ = [
    "RatingMeans",
    "RatingQuality",
    "fit_means",
    "means_of",
    "rating_quality",
    "ratings_of",
    "rmse",
]

# Each is the number of ratings equal to the mean that everybody is taken to have given, or
# got, beside the real ones: so few ratings say little. Users come first, then candidates.
Strengths = tuple[float, float]

_STRENGTHS: Strengths = (5.0, 3.0)
_USER_STRENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0)
_CANDIDATE_STRENGTHS = (1.0, 2.0, 3.0, 5.0, 10.0)
_SWEEPS = 10


@dataclass(frozen=True, kw_only=True)
class RatingMeans:
    """Mean of all ratings, and how far each user's and each candidate's lie from it.

    Attributes:
        mean: Of the ratings they were fitted on.
        user_bias: float64 `[num_users]`, 0 without ratings.
        candidate_bias: float64 `[num_candidates]`, 0 without ratings.
        lowest: Of the ratings; predictions stay within.
        highest: The same.
        strengths: How much the biases are drawn to 0.
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
        """Ratings float64 `[n]` of positions `[n]`: the mean and both biases."""
        raw = self.mean + self.user_bias[users] + self.candidate_bias[candidates]
        return np.clip(raw, self.lowest, self.highest)


@dataclass(frozen=True, kw_only=True)
class RatingQuality:
    """How good predicted ratings are on the held-out part.

    Attributes:
        rmse: Root of the mean squared error.
        baseline_rmse: That of `RatingMeans`, fitted on the same part.
        num_ratings: Held-out ratings.
    """

    rmse: float
    baseline_rmse: float
    num_ratings: int


def ratings_of(dataset: Dataset) -> npt.NDArray[np.float32]:
    """The ratings float32 `[num_interactions]`.

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
    """Means of the fitted part, their strengths chosen on the validation part if there is one.

    Raises:
        ValueError: The data has no ratings.
    """
    strengths = _STRENGTHS
    if len(split.validation):

        def error(pair: Strengths) -> float:
            means = means_of(dataset, split.training, pair)
            return _error(means, dataset, split.validation)

        strengths = min(itertools.product(_USER_STRENGTHS, _CANDIDATE_STRENGTHS), key=error)
    return means_of(dataset, split.fitted, strengths)


def means_of(
    dataset: Dataset,
    part: npt.NDArray[np.int64],
    strengths: Strengths,
    *,
    explained: npt.NDArray[np.float64] | None = None,
) -> RatingMeans:
    """Means of some interactions: each bias is the mean of what the rest leaves, drawn to 0.

    Args:
        dataset: The interactions.
        part: Positions int64 `[m]` of those to fit on.
        strengths: How much biases of users and of candidates are drawn to 0.
        explained: float64 `[m]`, what of each rating something else accounts for.
    """
    ratings = ratings_of(dataset)[part].astype(np.float64)
    lowest, highest = float(ratings.min()), float(ratings.max())
    if explained is not None:
        ratings -= explained
    users, candidates = dataset.user_positions[part], dataset.candidate_positions[part]
    num_users, num_candidates = len(dataset.user_ids), len(dataset.candidate_ids)
    of_users = np.bincount(users, minlength=num_users) + strengths[0]
    of_candidates = np.bincount(candidates, minlength=num_candidates) + strengths[1]
    mean = float(ratings.mean())
    user_bias = np.zeros(num_users)
    candidate_bias = np.zeros(num_candidates)
    for _ in range(_SWEEPS):
        left = ratings - mean - user_bias[users]
        candidate_bias = np.bincount(candidates, left, minlength=num_candidates) / of_candidates
        left = ratings - mean - candidate_bias[candidates]
        user_bias = np.bincount(users, left, minlength=num_users) / of_users
    return RatingMeans(
        mean=mean,
        user_bias=user_bias,
        candidate_bias=candidate_bias,
        lowest=lowest,
        highest=highest,
        strengths=strengths,
    )


def rmse(predicted: npt.NDArray[np.floating], ratings: npt.NDArray[np.floating]) -> float:
    """Root of the mean squared difference of two `[n]`."""
    return float(np.sqrt(np.mean((np.asarray(ratings, np.float64) - predicted) ** 2)))


def _error(means: RatingMeans, dataset: Dataset, part: npt.NDArray[np.int64]) -> float:
    predicted = means.predict(dataset.user_positions[part], dataset.candidate_positions[part])
    return rmse(predicted, ratings_of(dataset)[part])


def rating_quality(
    predicted: npt.NDArray[np.floating], dataset: Dataset, split: Split
) -> RatingQuality:
    """Judges predictions `[num_held_out]`, in the order of the held-out part."""
    return RatingQuality(
        rmse=rmse(predicted, ratings_of(dataset)[split.held_out]),
        baseline_rmse=_error(fit_means(dataset, split), dataset, split.held_out),
        num_ratings=len(split.held_out),
    )
