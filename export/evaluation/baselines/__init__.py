"""Baselines to compare a model with, each fitted to the histories of users."""

from shortlist.export.evaluation.baselines.fit import (
    BASELINES,
    Baseline,
    Kind,
    fit_baseline,
    fit_best,
)
from shortlist.export.evaluation.baselines.histories import Histories

__all__ = ["BASELINES", "Baseline", "Histories", "Kind", "fit_baseline", "fit_best"]
