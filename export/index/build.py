"""Builds an index by its name, and tunes it."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.config import IndexConfig, IvfConfig
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.brute_force import BruteForceIndex
from shortlist.export.index.ivf import IvfIndex
from shortlist.export.index.partition import RebuildError
from shortlist.export.index.previous import Leaves, PreviousIndex
from shortlist.export.index.scann import ScannIndex
from shortlist.export.index.tuning import RecallReport, retune, tune

__all__ = ["TunedIndex", "build_index", "build_tuned"]

_KINDS: dict[str, type[BruteForceIndex] | type[ScannIndex] | type[IvfIndex]] = {
    kind.index_name: kind for kind in (BruteForceIndex, ScannIndex, IvfIndex)
}


def build_index(
    name: str,
    candidate_embeddings: npt.NDArray[np.float32],
    candidate_ids: Sequence[str],
    config: IndexConfig,
    *,
    leaves: Leaves | None = None,
) -> CandidateIndex:
    """Build an index over candidates.

    Args:
        name: One of `shortlist.clients.contract.INDEXES`.
        candidate_embeddings: `[n, d]`.
        candidate_ids: `[n]` distinct ids.
        config: Configuration of that kind of index.
        leaves: Leaves of a previous `ivf` index, in which to place new candidates.

    Raises:
        RebuildError: The leaves do not suit the candidates; build without them.
        ValueError: No index can be built from the candidates; see `check_candidates`.
    """
    if leaves is not None and isinstance(config, IvfConfig):
        return IvfIndex(candidate_embeddings, candidate_ids, config, leaves)
    kind: Callable[[Any, Sequence[str], Any], CandidateIndex] = _KINDS[name]
    return kind(candidate_embeddings, candidate_ids, config)


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedIndex:
    """An index whose effort is chosen.

    Attributes:
        index: The index.
        recall: Its measured recall.
        origin: How it was made from a previous index, in words; None if there was none.
    """

    index: CandidateIndex
    recall: RecallReport
    origin: str | None = None


def build_tuned(
    name: str,
    candidate_embeddings: npt.NDArray[np.float32],
    candidate_ids: Sequence[str],
    config: IndexConfig,
    *,
    queries: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
    target: float | None,
    previous: PreviousIndex | None = None,
) -> TunedIndex:
    """Build an index and choose its effort.

    New candidates are placed in the leaves of the previous index, and its effort is kept if
    it, or up to a quarter more leaves, reaches the recall. If not, leaves are built again,
    and if that is not enough either, all efforts are explored.

    Args:
        name: One of `shortlist.clients.contract.INDEXES`.
        candidate_embeddings: `[n, d]`.
        candidate_ids: `[n]` distinct ids.
        config: Configuration of that kind of index.
        queries: `[num_queries, d]` real outputs of the query tower.
        exact: `[num_queries, k]` positions of their exact answers.
        target: Recall@k to reach, or None to keep the configured effort.
        previous: Index of the corpus before, with the positions of this one.

    Raises:
        ValueError: No index can be built from the candidates, or none reaches the target.
    """
    index_args = (name, candidate_embeddings, candidate_ids, config)
    origin = recall = None
    if previous is not None and previous.leaves is not None:
        try:
            index = build_index(*index_args, leaves=previous.leaves)
            recall = retune(index, queries, exact, target=target, previous=previous)
            if recall is not None:
                placed = f"{previous.leaves.unplaced():,} of {index.num_candidates:,}"
                origin = f"placed {placed} in spare places"
                return TunedIndex(index=index, recall=recall, origin=origin)
            origin = f"rebuilt: recall@{exact.shape[1]} fell below {target}"
            index.release()
            del index
            gc.collect()  # before the next one, which needs as much memory
        except RebuildError as exc:
            origin = f"rebuilt: {exc}"
    index = build_index(*index_args)
    if previous is not None:
        origin = origin or "rebuilt: there are no spare places"
        start = previous.with_new_leaves(index.parameters().get("num_leaves"))
        if start is not None:
            recall = retune(index, queries, exact, target=target, previous=start)
    if recall is None:
        recall = tune(index, queries, exact, target=target)
    return TunedIndex(index=index, recall=recall, origin=origin)
