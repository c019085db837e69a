"""Measures a model or baseline on held-out interactions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.config import PROTOCOLS, Protocol
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import Questions
from shortlist.export.data.split import Split
from shortlist.export.evaluation.held_out import HeldOut
from shortlist.export.evaluation.metrics import (
    ActivityBucket,
    Interval,
    activity_buckets,
    at_k,
    bootstrap,
    breadth,
    popularity_bands,
    user_gains,
)
from shortlist.export.evaluation.ranking import Ranking, Scorer, rank_answers
from shortlist.export.evaluation.reference import drift_reference
from shortlist.export.evaluation.similar import SimilarQuality
from shortlist.export.towers.rating_means import fit_means, ratings_of, rmse
from shortlist.serving.repository.version import DriftReference, Headline

__all__ = [
    "KS",
    "Evaluation",
    "RatingQuality",
    "evaluate",
    "evaluate_ranking",
    "rating_quality",
]

KS = (1, 5, 10, 50, 100)
_HEADLINE_K = 10
_BANDS_K = 10  # length of the lists for popularity bands


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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a model on held-out interactions.

    Protocol `seen_kept` ranks the whole corpus; `seen_excluded` ranks it without the candidates
    that the user had before, and counts only held-out interactions with other candidates.

    Attributes:
        held_out: Size of the held-out part.
        metrics: By protocol and name: hit rate, NDCG and MRR at each k (see `metrics.at_k`), for
            which an interaction counts by its weight if the data has weights,
            coverage and popularity lift (see `metrics.breadth`); with the split `new_users` also
            the metrics of the literature for it (see `metrics.user_gains`). Without
            `seen_excluded` if all held-out interactions repeat a candidate of the user.
        intervals: 95% intervals of hit rate, NDCG and MRR, by protocol and name; empty without
            resamples.
        activity: The same metrics for groups of users by activity.
        bands: By protocol, shares of `metrics.BANDS` in the top 10; under `held_out`, those of
            the held-out interactions.
        rating: Error of predicted ratings; None without a rating head.
        similar: Quality of `similar` by co-interactions; None if it uses the towers.
        settings: Settings of a baseline, chosen on the validation part.
        references: By protocol, what to measure drift from; empty for baselines.
    """

    held_out: HeldOut
    metrics: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Interval]]
    activity: Sequence[ActivityBucket]
    bands: Mapping[str, Sequence[float]]
    rating: RatingQuality | None = None
    similar: SimilarQuality | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    references: Mapping[Protocol, DriftReference] = field(default_factory=dict)

    def headline(self, protocol: Protocol) -> Headline:
        """Return the metric that summarises a model: hit rate@10 by its protocol.

        Raises:
            ValueError: By this protocol nothing can be hit.
        """
        self.held_out.check(protocol)
        metrics = self.metrics[protocol]
        ks = [int(name.partition("@")[2]) for name in metrics if name.startswith("hit_rate@")]
        metric = f"hit_rate@{max(k for k in ks if k <= max(_HEADLINE_K, min(ks)))}"
        interval = self.intervals.get(protocol, {}).get(metric)
        return Headline(
            metric=metric,
            protocol=protocol,
            value=metrics[metric],
            interval=None if interval is None else (interval.low, interval.high),
            as_served=self.held_out.as_served,
        )

    def as_json(self, protocol: Protocol) -> dict[str, Any]:
        """Metrics by protocol, the headline, and all other values, as JSON types."""
        values: dict[str, Any] = {"headline": self.headline(protocol).as_json()}
        values |= {name: dict(rows) for name, rows in self.metrics.items()}
        values["held_out"] = asdict(self.held_out)
        values["activity"] = [asdict(bucket) for bucket in self.activity]
        values["popularity_bands"] = {name: list(shares) for name, shares in self.bands.items()}
        if self.rating is not None:
            values["rating"] = asdict(self.rating)
        if self.similar is not None:
            values["similar"] = asdict(self.similar)
        if self.settings:
            values["settings"] = dict(self.settings)
        if self.intervals:
            values["intervals"] = {
                protocol: {name: [interval.low, interval.high] for name, interval in rows.items()}
                for protocol, rows in self.intervals.items()
            }
        return values


def evaluate(
    scorer: Scorer,
    questions: Questions,
    popularity: npt.NDArray[np.int64],
    *,
    ks: Sequence[int] = KS,
    resamples: int = 0,
    num_kept: npt.NDArray[np.integer] | None = None,
) -> Evaluation:
    """Exact metrics of the answers to questions, over the whole corpus.

    Args:
        scorer: Scores to rank by.
        questions: Questions of the held-out part.
        popularity: int `[num_candidates]`, interactions in the training part.
        ks: Cut-offs; those larger than the corpus are ignored.
        resamples: Bootstrap resamples; 0 for no intervals.
        num_kept: `[num_users]`, events of each user that a servable keeps; None for no references.
    """
    top_k = max(k for k in ks if k <= len(popularity))
    ranking = rank_answers(scorer, questions, top_k=top_k)
    evaluation = evaluate_ranking(ranking, popularity, ks=ks, resamples=resamples)
    if num_kept is None:
        return evaluation
    references = {name: drift_reference(ranking, name, num_kept) for name in PROTOCOLS}
    return replace(evaluation, references=references)


def evaluate_ranking(
    ranking: Ranking,
    popularity: npt.NDArray[np.int64],
    *,
    ks: Sequence[int] = KS,
    resamples: int = 0,
) -> Evaluation:
    """Metrics of an existing ranking, for the cut-offs up to its `top_k`."""
    ks = [k for k in ks if k <= ranking.top_k]
    protocols = [protocol for protocol in PROTOCOLS if ranking.counted(protocol).any()]
    by_user = {
        protocol: user_gains(ranking, protocol) if ranking.questions.method == "new_users" else {}
        for protocol in protocols
    }
    return Evaluation(
        held_out=HeldOut.of(ranking.questions),
        metrics={
            protocol: {
                **at_k(ranking.ranks[protocol], ks, ranking.weights(protocol)),
                **{name: float(np.nanmean(gain)) for name, gain in by_user[protocol].items()},
                **breadth(ranking, protocol, popularity, ks),
            }
            for protocol in protocols
        },
        intervals={
            protocol: bootstrap(
                ranking, protocol, ks, resamples=resamples, per_user=by_user[protocol]
            )
            for protocol in protocols
            if resamples
        },
        activity=activity_buckets(ranking, ks),
        bands={
            "held_out": popularity_bands(ranking.questions.candidates, popularity),
            **{
                protocol: popularity_bands(ranking.top[protocol][:, :_BANDS_K], popularity)
                for protocol in PROTOCOLS
            },
        },
    )
