"""Baselines to compare a model with, each fitted to the histories of users."""

from shortlist.export.evaluation.baselines.fit import (
    BASELINES,
    Baseline,
    Kind,
    fit_baseline,
    fit_best,
)

__all__ = ["BASELINES", "Baseline", "Kind", "fit_baseline", "fit_best"]
