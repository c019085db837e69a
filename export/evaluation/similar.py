"""Quality of `similar`: how well it predicts the next candidate of a user."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split

__all__ = ["SimilarQuality", "similar_quality"]

Matrix = npt.NDArray[np.float32]

_K = 10
_MOST_SCORES = 16_000_000  # in memory at once, 64 MB


@dataclass(frozen=True, kw_only=True)
class SimilarQuality:
    """Hit rate@10 of held-out candidates among those similar to the user's previous one.

    Attributes:
        hit_rate: With the queries learned from co-interactions.
        towers_hit_rate: With the candidates' own embeddings as queries.
        num_pairs: Number of held-out interactions that have a previous one.
    """

    hit_rate: float
    towers_hit_rate: float
    num_pairs: int


def similar_quality(
    dataset: Dataset, split: Split, queries: Matrix, candidate_embeddings: Matrix
) -> SimilarQuality:
    """Query with the user's last candidate before each held-out one, excluding itself.

    Without times, the query is a random candidate of the user.
    """
    sources, targets = _questions(dataset, split)
    return SimilarQuality(
        hit_rate=_hit_rate(queries, candidate_embeddings, sources, targets),
        towers_hit_rate=_hit_rate(candidate_embeddings, candidate_embeddings, sources, targets),
        num_pairs=len(sources),
    )


def _questions(
    dataset: Dataset, split: Split
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Query and target candidate of each held-out interaction that has a previous one."""
    order = dataset.in_user_order(np.arange(dataset.num_interactions), np.random.default_rng(0))
    users = dataset.user_positions[order]
    fitted = np.isin(order, split.fitted)
    # Place of the latest fitted interaction up to each place, of any user.
    latest = np.maximum.accumulate(np.where(fitted, np.arange(len(order)), -1))
    places = np.flatnonzero(np.isin(order, split.held_out))
    before = latest[places]
    answerable = (before >= 0) & (users[before] == users[places])
    sources = dataset.candidate_positions[order[before[answerable]]]
    targets = dataset.candidate_positions[order[places[answerable]]]
    different = sources != targets
    return sources[different], targets[different]


def _hit_rate(
    queries: Matrix,
    candidate_embeddings: Matrix,
    sources: npt.NDArray[np.int32],
    targets: npt.NDArray[np.int32],
) -> float:
    """Share of targets in the top 10; equal scores rank by position."""
    hits = 0
    size = max(1, _MOST_SCORES // len(candidate_embeddings))
    for first in range(0, len(sources), size):
        source, target = sources[first : first + size], targets[first : first + size]
        rows = np.arange(len(source))
        scores = queries[source] @ candidate_embeddings.T
        scores[rows, source] = -np.inf
        own = scores[rows, target][:, None]
        earlier = np.arange(scores.shape[1])[None] < target[:, None]
        better = (scores > own) | ((scores == own) & earlier)
        hits += int(np.count_nonzero(better.sum(axis=1) < _K))
    return hits / len(sources) if len(sources) else 0.0
