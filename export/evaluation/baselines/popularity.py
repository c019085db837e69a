"""Baselines that recommend the same popular candidates to everyone."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories
from shortlist.export.evaluation.baselines.types import Score, Settings

__all__ = ["fit_popularity", "fit_recent_popularity"]

_DAY = 86_400.0


def fit_popularity(training: Histories, settings: Settings) -> Score:
    """Score a candidate by its number of interactions."""
    return _same_for_all(training.counts())


def fit_recent_popularity(training: Histories, settings: Settings) -> Score:
    """Score a candidate by its interactions, whose weight halves every `half_life_days`."""
    assert training.times is not None, "fit_baseline refuses data without times"
    ages = (training.times.max(initial=0) - training.times) / _DAY
    weights = 0.5 ** (ages / settings["half_life_days"])
    return _same_for_all(np.bincount(training.events.columns, weights, training.num_candidates))


def _same_for_all(scores: npt.NDArray[np.number]) -> Score:
    row = scores.astype(np.float32)[None]
    return lambda histories, settings: np.repeat(row, histories.events.num_rows, axis=0)
