"""Measures a model, or a rival, on the interactions that were held out of training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.ratings import RatingQuality
from shortlist.export.data.split import Split
from shortlist.export.evaluation.metrics import (
    ActivityBucket,
    Interval,
    activity_buckets,
    at_k,
    bootstrap,
    breadth,
    popularity_bands,
)
from shortlist.export.evaluation.ranking import Ranking, Scorer, rank_held_out, rank_in_one_order
from shortlist.export.evaluation.similar import SimilarQuality

__all__ = [
    "KS",
    "PROTOCOLS",
    "Evaluation",
    "evaluate",
    "evaluate_popularity",
    "evaluate_ranking",
]

KS = (1, 5, 10, 50, 100)
PROTOCOLS = ("seen_kept", "seen_excluded")
_BANDS_K = 10  # length of the lists whose popularity bands are counted


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a model is on held-out interactions.

    `seen_kept` ranks the whole corpus, `seen_excluded` leaves out what the user has in
    the training part.

    Attributes:
        num_users: Users with held-out interactions.
        num_held_out: Those interactions.
        metrics: By protocol and name: hit rate, NDCG and MRR at each k, see
            `shortlist.export.evaluation.metrics.at_k`; coverage and popularity lift, see `breadth`.
        intervals: 95 % intervals of the first three, by protocol and name; empty where no
            resamples were asked for.
        activity: The same metrics for users of similar activity.
        bands: By protocol, shares of the top 10 by `metrics.BANDS`; and under
            `held_out` those of the held-out interactions.
        rating: Of predicted ratings; None where none are predicted.
        similar: Of candidates by co-interactions; None where towers find them.
    """

    num_users: int
    num_held_out: int
    metrics: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Interval]]
    activity: Sequence[ActivityBucket]
    bands: Mapping[str, Sequence[float]]
    rating: RatingQuality | None = None
    similar: SimilarQuality | None = None

    def as_json(self) -> dict[str, Any]:
        """Metrics by protocol, and the rest, in values that JSON knows."""
        values: dict[str, Any] = {name: dict(rows) for name, rows in self.metrics.items()}
        values["held_out"] = {"users": self.num_users, "interactions": self.num_held_out}
        values["activity"] = [asdict(bucket) for bucket in self.activity]
        values["popularity_bands"] = {name: list(shares) for name, shares in self.bands.items()}
        if self.rating is not None:
            values["rating"] = asdict(self.rating)
        if self.similar is not None:
            values["similar"] = asdict(self.similar)
        if self.intervals:
            values["intervals"] = {
                protocol: {name: [one.low, one.high] for name, one in rows.items()}
                for protocol, rows in self.intervals.items()
            }
        return values


def evaluate(
    scorer: Scorer,
    dataset: Dataset,
    split: Split,
    *,
    ks: Sequence[int] = KS,
    resamples: int = 0,
) -> Evaluation:
    """Exact metrics on the held-out part, over the whole corpus.

    Args:
        scorer: Whose order is judged.
        dataset: The interactions that `split` refers to.
        split: All that it does not hold out counts as seen.
        ks: Cut-offs; those beyond the corpus are left out.
        resamples: Of the bootstrap; 0 for no intervals.

    Raises:
        ValueError: Nothing is held out.
    """
    top_k = max(k for k in ks if k <= len(dataset.candidate_ids))
    ranking = rank_held_out(scorer, dataset, split, top_k=top_k, seen=split.fitted)
    return evaluate_ranking(ranking, dataset, split, ks=ks, resamples=resamples)


def evaluate_popularity(
    dataset: Dataset, split: Split, *, ks: Sequence[int] = KS, resamples: int = 0
) -> Evaluation:
    """The same for everybody's most popular candidates, at next to no cost.

    Raises:
        ValueError: Nothing is held out.
    """
    popularity = np.bincount(
        dataset.candidate_positions[split.fitted], minlength=len(dataset.candidate_ids)
    )
    order = np.argsort(-popularity, kind="stable")
    top_k = max(k for k in ks if k <= len(dataset.candidate_ids))
    ranking = rank_in_one_order(order, dataset, split, top_k=top_k)
    return evaluate_ranking(ranking, dataset, split, ks=ks, resamples=resamples)


def evaluate_ranking(
    ranking: Ranking,
    dataset: Dataset,
    split: Split,
    *,
    ks: Sequence[int] = KS,
    resamples: int = 0,
) -> Evaluation:
    """The same metrics of a ranking that is there already, as far as its `top_k` goes."""
    ks = [k for k in ks if k <= ranking.top_k]
    seen = split.fitted
    popularity = np.bincount(
        dataset.candidate_positions[seen], minlength=len(dataset.candidate_ids)
    )
    activity = np.bincount(dataset.user_positions[seen], minlength=len(dataset.user_ids))
    return Evaluation(
        num_users=len(ranking.users),
        num_held_out=len(split.held_out),
        metrics={
            protocol: {
                **at_k(ranking.ranks[protocol], ks),
                **breadth(ranking, protocol, popularity, ks),
            }
            for protocol in PROTOCOLS
        },
        intervals={
            protocol: bootstrap(ranking, protocol, ks, resamples=resamples)
            for protocol in PROTOCOLS
            if resamples
        },
        activity=activity_buckets(ranking, activity, ks),
        bands={
            "held_out": popularity_bands(ranking.candidates, popularity),
            **{
                protocol: popularity_bands(ranking.top[protocol][:, :_BANDS_K], popularity)
                for protocol in PROTOCOLS
            },
        },
    )
