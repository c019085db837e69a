"""How well `similar` finds what a user has next."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split

__all__ = ["SimilarQuality", "in_users_order", "similar_quality"]

Matrix = npt.NDArray[np.float32]

_K = 10
_MOST_SCORES = 16_000_000  # in memory at once, 64 MB


@dataclass(frozen=True, kw_only=True)
class SimilarQuality:
    """Hit rate at 10 of held-out candidates among those similar to the one before.

    Attributes:
        hit_rate: With the queries learned from co-interactions.
        towers_hit_rate: With the candidates' own embeddings as queries.
        num_pairs: Held-out interactions whose user has one before to ask with.
    """

    hit_rate: float
    towers_hit_rate: float
    num_pairs: int


def in_users_order(
    dataset: Dataset, part: npt.NDArray[np.int64], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Positions by user, and by time or at random within each."""
    if dataset.timestamps is None:
        within: npt.NDArray[Any] = random.permutation(len(part))
    else:
        within = dataset.timestamps[part]
    return part[np.lexsort((part, within, dataset.user_positions[part]))]


def similar_quality(
    dataset: Dataset, split: Split, queries: Matrix, candidate_embeddings: Matrix
) -> SimilarQuality:
    """Asks with the user's last candidate before each held-out one, itself excluded.

    Without times, with one of the user's that is drawn at random.
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
    """Candidate to ask with and candidate wanted, of each held-out interaction with both."""
    everything = in_users_order(
        dataset, np.arange(dataset.num_interactions), np.random.default_rng(0)
    )
    users = dataset.user_positions[everything]
    fitted = np.isin(everything, split.fitted)
    # The place of the latest fitted interaction up to each place, of whichever user.
    latest = np.maximum.accumulate(np.where(fitted, np.arange(len(everything)), -1))
    places = np.flatnonzero(np.isin(everything, split.held_out))
    before = latest[places]
    answerable = (before >= 0) & (users[before] == users[places])
    sources = dataset.candidate_positions[everything[before[answerable]]]
    targets = dataset.candidate_positions[everything[places[answerable]]]
    different = sources != targets
    return sources[different], targets[different]


def _hit_rate(
    queries: Matrix,
    candidate_embeddings: Matrix,
    sources: npt.NDArray[np.int32],
    targets: npt.NDArray[np.int32],
) -> float:
    """Share of targets that fewer than 10 other candidates beat; equal scores by position."""
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
