"""Distributions of held-out queries and their answers, to measure drift from later."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shortlist.export.config import Protocol
from shortlist.export.evaluation.ranking import Ranking
from shortlist.serving.repository.version import Buckets, DriftReference

__all__ = ["buckets", "counts_between", "drift_reference"]

_BUCKETS: Final = 10


def buckets(values: npt.NDArray[np.number]) -> Buckets:
    """Return the counts of at least one value between its tenths; NaN and infinity are left out."""
    values = values[np.isfinite(values)]
    edges = np.unique(np.quantile(values, np.arange(1, _BUCKETS) / _BUCKETS)).tolist()
    counts = counts_between(edges, values).astype(int).tolist()
    return Buckets(edges=tuple(edges), counts=tuple(counts))


def counts_between(
    edges: Sequence[float], values: npt.NDArray[np.number]
) -> npt.NDArray[np.float64]:
    """Return the number of values in each bucket, `[len(edges) + 1]`."""
    # Values that are equal to an edge belong below it: many lengths are equal.
    places = np.searchsorted(np.asarray(edges), values, side="left")
    return np.bincount(places, minlength=len(edges) + 1).astype(np.float64)


def drift_reference(
    ranking: Ranking, protocol: Protocol, num_kept: npt.NDArray[np.integer]
) -> DriftReference:
    """Return the distributions of questions and answers.

    Args:
        ranking: Answers with scores.
        protocol: How answers treat seen candidates.
        num_kept: `[num_users]`, events of each user that a servable keeps.
    """
    questions, scores = ranking.questions, ranking.best_scores[protocol]
    lengths = questions.stops - questions.starts - num_kept[questions.users]
    by_time = questions.method == "global_time"
    return DriftReference(
        scores=buckets(scores) if np.isfinite(scores).any() else None,
        histories=buckets(lengths) if questions.as_served else None,
        unknown_users=float(1 - questions.known.mean()) if by_time else None,
    )
