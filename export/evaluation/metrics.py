"""Metrics of ranks: hit rate, NDCG and MRR at k, coverage, popularity, activity, intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.config import Protocol
from shortlist.export.evaluation.ranking import Ranking

__all__ = [
    "BANDS",
    "USER_METRICS",
    "ActivityBucket",
    "Interval",
    "activity_buckets",
    "at_k",
    "bootstrap",
    "breadth",
    "popularity_bands",
    "user_gains",
]

# Ends of the bands of the corpus by popularity, most popular first: 1 %, the next 4 %, the
# next 15 %, and the other 80 %.
BANDS = (0.01, 0.05, 0.2, 1.0)
_MOST_UNITS = 20_000  # units that the bootstrap draws: users or groups of users
_USER_RECALL_KS, _USER_NDCG_K = (20, 50), 100  # as in the literature since Mult-VAE
USER_METRICS = (f"user_ndcg@{_USER_NDCG_K}", *(f"user_recall@{k}" for k in _USER_RECALL_KS))


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95% interval."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ActivityBucket:
    """Users with a similar number of interactions before the question.

    Attributes:
        fewest: Interactions of the least active user.
        most: Interactions of the most active user.
        num_users: Number of users.
        num_held_out: Number of their held-out interactions.
        num_repeats: Number of those whose candidate the user had before.
        metrics: Metrics of these interactions, by protocol and name; without a protocol by which
            none of them can be hit.
    """

    fewest: int
    most: int
    num_users: int
    num_held_out: int
    num_repeats: int
    metrics: Mapping[str, Mapping[str, float]]


def _gains(ranks: npt.NDArray[np.int64], k: int) -> dict[str, npt.NDArray[np.float64]]:
    """Contribution of each held-out interaction to the metrics at k."""
    hit = ranks < k
    return {
        f"hit_rate@{k}": hit.astype(np.float64),
        f"ndcg@{k}": np.where(hit, 1.0 / np.log2(ranks + 2.0), 0.0),
        f"mrr@{k}": np.where(hit, 1.0 / (ranks + 1.0), 0.0),
    }


def at_k(
    ranks: npt.NDArray[np.int64],
    ks: Sequence[int],
    weights: npt.NDArray[np.float32] | None = None,
) -> dict[str, float]:
    """Mean metrics over held-out interactions, each of which is the only correct answer.

    An interaction with rank r (from 0) below k counts 1 for the hit rate (TFRS: top-k
    categorical accuracy), 1 / log2(r + 2) for NDCG and 1 / (r + 1) for MRR; otherwise 0.

    Args:
        ranks: int64 `[n]`; if empty, all metrics are 0.
        ks: Cut-offs.
        weights: float32 `[n]`, weights of the mean; None for equal ones.

    Returns:
        By name: the hit rates at all k, then NDCG, then MRR.
    """
    total = len(ranks) if weights is None else weights.sum(dtype=np.float64)
    values = {
        name: float((gain if weights is None else weights * gain).sum() / (total or 1))
        for k in ks
        for name, gain in _gains(ranks, k).items()
    }
    return {name: values[name] for name in sorted(values, key=lambda name: _ORDER[name[0]])}


_ORDER = {"h": 0, "n": 1, "m": 2}


def user_gains(ranking: Ranking, protocol: Protocol) -> dict[str, npt.NDArray[np.float64]]:
    """Metrics of each user for whom all held-out candidates are correct answers.

    `user_recall@k` is the share of the user's held-out candidates in the top k, at most k of
    which count; `user_ndcg@k` is the DCG of the list divided by that of the best possible one.
    Both are those of Liang et al. 2018 (Mult-VAE). A candidate counts once.

    Args:
        ranking: Ranking of one question per user.
        protocol: Protocol of the ranks.

    Returns:
        By name, `[num_questions]`; NaN for a user of whom nothing counts. Without cut-offs
        beyond the ranking's.
    """
    questions, counted = ranking.questions, ranking.counted(protocol)
    pairs = np.stack([questions.owners[counted], questions.candidates[counted]])
    _, first = np.unique(pairs, axis=1, return_index=True)
    owners, ranks = pairs[0, first], ranking.places[protocol][counted][first]

    def per_user(gain: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(owners, gain, minlength=len(questions)).astype(np.float64)

    correct = per_user(np.ones(len(owners)))
    correct[correct == 0] = np.nan
    discounts = 1.0 / np.log2(np.arange(_USER_NDCG_K) + 2.0)
    gains = {}
    if ranking.top_k >= _USER_NDCG_K:
        best = np.insert(np.cumsum(discounts), 0, np.nan)
        most = np.minimum(np.nan_to_num(correct), _USER_NDCG_K).astype(int)
        own = np.append(discounts, 0.0)[np.minimum(ranks, _USER_NDCG_K)]
        gains[f"user_ndcg@{_USER_NDCG_K}"] = per_user(own) / best[most]
    for k in _USER_RECALL_KS:
        if ranking.top_k >= k:
            gains[f"user_recall@{k}"] = per_user((ranks < k).astype(float)) / np.minimum(correct, k)
    return gains


def bootstrap(
    ranking: Ranking,
    protocol: Protocol,
    ks: Sequence[int],
    *,
    resamples: int,
    per_user: Mapping[str, npt.NDArray[np.float64]] | None = None,
    seed: int = 0,
    most_units: int = _MOST_UNITS,
) -> dict[str, Interval]:
    """Intervals by resampling users, because the interactions of a user are not independent.

    Users without an interaction that counts are not drawn.

    Efron's percentile method: the 2.5% and 97.5% quantiles of the metric over `resamples`
    draws of as many users, with replacement. If there are more than `most_units` users, random
    groups of them are drawn instead. The groups are as independent as the users, so the
    intervals are as wide, and the cost stops growing.

    Args:
        ranking: Ranks of the interactions.
        protocol: Protocol of the ranks.
        ks: Cut-offs.
        resamples: Number of resamples.
        per_user: Result of `user_gains`, for intervals of these metrics, too.
        seed: Random seed.
        most_units: Number of users or groups, at most.
    """
    gains: dict[str, npt.NDArray[np.float64]] = {}
    for k in ks:
        gains.update(_gains(ranking.ranks[protocol], k))
    random = np.random.default_rng(seed)
    questions = ranking.questions
    owners = questions.owners[ranking.counted(protocol)]
    users, units = np.unique(questions.users[owners], return_inverse=True)
    num_units = len(users)
    if num_units > most_units:
        units = (random.permutation(num_units) % most_units)[units]
        num_units = most_units
    weights = ranking.weights(protocol)
    weights = np.ones(len(units), np.float32) if weights is None else weights
    # Of each unit, the sum of every metric and the weight of the interactions or number of users.
    sums = [np.bincount(units, weights * gain, minlength=num_units) for gain in gains.values()]
    counts = [np.bincount(units, weights, minlength=num_units)] * len(gains)
    askers, first = np.unique(owners, return_index=True)
    for gain in (per_user or {}).values():
        sums.append(np.bincount(units[first], gain[askers], minlength=num_units))
        counts.append(np.bincount(units[first], minlength=num_units).astype(np.float64))
    names = [*gains, *(per_user or {})]
    draws = np.empty((resamples, len(names)))
    for draw in draws:
        times = np.bincount(random.integers(num_units, size=num_units), minlength=num_units)
        draw[:] = np.stack(sums) @ times / (np.stack(counts) @ times)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return {name: Interval(low=float(low[i]), high=float(high[i])) for i, name in enumerate(names)}


def breadth(
    ranking: Ranking,
    protocol: Protocol,
    popularity: npt.NDArray[np.int64],
    ks: Sequence[int],
) -> dict[str, float]:
    """Share of the corpus that is recommended, and its popularity.

    Args:
        ranking: Top lists of all questions.
        protocol: Protocol of the lists to use.
        popularity: int `[num_candidates]`, interactions in the training part.
        ks: Cut-offs.

    Returns:
        `coverage@k`, the share of candidates in any top k; and `popularity_lift@k`,
        the mean popularity of recommended candidates divided by that of held-out ones. At 1
        recommendations are as popular as what users choose; above 1 they are biased towards
        popular candidates.
    """
    chosen = float(np.mean(popularity[ranking.questions.candidates[ranking.counted(protocol)]]))
    values: dict[str, float] = {}
    for k in ks:
        top = ranking.top[protocol][:, :k]
        top = top[top >= 0]
        values[f"coverage@{k}"] = len(np.unique(top)) / len(popularity)
        if len(top) and chosen > 0:
            values[f"popularity_lift@{k}"] = float(np.mean(popularity[top])) / chosen
    return values


def popularity_bands(
    candidates: npt.NDArray[np.int32], popularity: npt.NDArray[np.int64]
) -> list[float]:
    """Shares of candidates by `BANDS`, which add up to 1.

    Args:
        candidates: Positions, of any shape; -1 is ignored.
        popularity: int `[num_candidates]`, interactions in the training part.
    """
    ends = np.ceil(np.array(BANDS) * len(popularity))
    place = np.empty(len(popularity), np.int64)
    place[np.argsort(-popularity, kind="stable")] = np.arange(len(popularity))
    bands = np.searchsorted(ends, place[candidates[candidates >= 0]], side="right")
    counts = np.bincount(bands, minlength=len(BANDS))
    return [float(share) for share in counts / max(1, counts.sum())]


def activity_buckets(
    ranking: Ranking, ks: Sequence[int], *, num_buckets: int = 4
) -> list[ActivityBucket]:
    """Metrics for groups of users by activity before the question, least active first.

    The borders are quantiles of the questions, so that buckets have about the same number of
    them; empty buckets are omitted. A user who asks several times may be in several.

    Args:
        ranking: Ranks of all questions.
        ks: Cut-offs.
        num_buckets: Number of buckets, at most.
    """
    questions = ranking.questions
    own = questions.stops - questions.starts
    borders = np.quantile(own, np.arange(1, num_buckets) / num_buckets, method="lower")
    bucket_of = np.searchsorted(borders, own, side="left")
    buckets = []
    for bucket in np.unique(bucket_of):
        asked = bucket_of == bucket
        rows = asked[questions.owners]
        buckets.append(
            ActivityBucket(
                fewest=int(own[asked].min()),
                most=int(own[asked].max()),
                num_users=len(np.unique(questions.users[asked])),
                num_held_out=int(rows.sum()),
                num_repeats=int(questions.repeats[rows].sum()),
                metrics={
                    protocol: at_k(
                        ranks[counted],
                        ks,
                        None if questions.weights is None else questions.weights[counted],
                    )
                    for protocol, ranks in ranking.places.items()
                    if (counted := rows & ranking.counted(protocol)).any()
                },
            )
        )
    return buckets
