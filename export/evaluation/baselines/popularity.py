"""Baselines that recommend the same popular candidates to everyone."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories
from shortlist.export.evaluation.baselines.types import Score, Settings

__all__ = ["fit_popularity", "fit_recent_popularity"]


def fit_popularity(training: Histories, settings: Settings) -> Score:
    """Score a candidate by its number of interactions."""
    return _same_for_all(training.popularity())


def fit_recent_popularity(training: Histories, settings: Settings) -> Score:
    """Score a candidate by its interactions, whose weight halves every `half_life_days`."""
    assert training.times is not None, "fit_baseline refuses data without times"
    return _same_for_all(training.popularity(settings["half_life_days"]))


def _same_for_all(scores: npt.NDArray[np.number]) -> Score:
    row = scores.astype(np.float32)[None]
    return lambda histories, settings: np.repeat(row, len(histories), axis=0)
