"""Builds an index by its name."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.config import IndexConfig
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.brute_force import BruteForceIndex
from shortlist.export.index.ivf import IvfIndex
from shortlist.export.index.scann import ScannIndex

__all__ = ["build_index"]

_KINDS: dict[str, type[BruteForceIndex] | type[ScannIndex] | type[IvfIndex]] = {
    kind.index_name: kind for kind in (BruteForceIndex, ScannIndex, IvfIndex)
}


def build_index(
    name: str,
    candidate_embeddings: npt.NDArray[np.float32],
    candidate_ids: Sequence[str],
    config: IndexConfig,
) -> CandidateIndex:
    """Build an index over candidates.

    Args:
        name: One of `shortlist.clients.contract.INDEXES`.
        candidate_embeddings: `[n, d]`.
        candidate_ids: `[n]` distinct ids.
        config: Configuration of that kind of index.

    Raises:
        ValueError: No index can be built from the candidates; see `check_candidates`.
    """
    kind: Callable[[Any, Sequence[str], Any], CandidateIndex] = _KINDS[name]
    return kind(candidate_embeddings, candidate_ids, config)
