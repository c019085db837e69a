"""Quality of predicted ratings."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.towers.rating_means import fit_means, ratings_of, rmse

__all__ = ["RatingQuality", "rating_quality"]


@dataclass(frozen=True, kw_only=True)
class RatingQuality:
    """Error of predicted ratings on the held-out part.

    Attributes:
        rmse: Root mean squared error.
        baseline_rmse: Error of `RatingMeans`, fitted to the same part.
        num_ratings: Number of held-out ratings.
    """

    rmse: float
    baseline_rmse: float
    num_ratings: int


def rating_quality(
    predicted: npt.NDArray[np.floating], dataset: Dataset, split: Split
) -> RatingQuality:
    """Quality of predictions `[num_held_out]`, in the order of the held-out part."""
    return RatingQuality(
        rmse=rmse(predicted, ratings_of(dataset)[split.held_out]),
        baseline_rmse=fit_means(dataset, split).error(dataset, split.held_out),
        num_ratings=len(split.held_out),
    )
