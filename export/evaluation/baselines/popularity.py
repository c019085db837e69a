"""Baselines that recommend the same popular candidates to everyone."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.evaluation.baselines.types import Score, Settings

__all__ = ["fit_popularity", "fit_recent_popularity", "recent_counts"]

_DAY = 86_400.0


def fit_popularity(training: Histories, settings: Settings) -> Score:
    """Score a candidate by its number of interactions."""
    return _same_for_all(training.counts())


def fit_recent_popularity(training: Histories, settings: Settings) -> Score:
    """Score a candidate by its interactions, whose weight halves every `half_life_days`."""
    assert training.times is not None, "fit_baseline refuses data without times"
    weights = _weights(training.times, settings["half_life_days"])
    return _same_for_all(np.bincount(training.events.columns, weights, training.num_candidates))


def recent_counts(
    dataset: Dataset, part: npt.NDArray[np.int64], half_life_days: float
) -> npt.NDArray[np.float64]:
    """Count interactions by candidate, `[num_candidates]`, with weights that halve with age.

    `fit_baseline("recent_popularity", …)` chooses a half-life on the validation part.

    Args:
        dataset: Interactions with times.
        part: Positions of the interactions to count.
        half_life_days: Age before the latest one of the part at which one counts a half.
    """
    assert dataset.timestamps is not None
    weights = _weights(dataset.timestamps[part], half_life_days)
    counts = np.bincount(dataset.candidate_positions[part], weights, len(dataset.candidate_ids))
    return counts.astype(np.float64)


def _weights(times: npt.NDArray[np.int64], half_life_days: float) -> npt.NDArray[np.float64]:
    ages: npt.NDArray[np.float64] = (times.max(initial=0) - times) / _DAY
    return 0.5 ** (ages / half_life_days)


def _same_for_all(scores: npt.NDArray[np.number]) -> Score:
    row = scores.astype(np.float32)[None]
    return lambda histories, settings: np.repeat(row, len(histories), axis=0)
