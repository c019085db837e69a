"""Chooses how hard an index tries: the least effort that reaches a recall."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export._tf import tf
from export.index.base import CandidateIndex, Effort

__all__ = [
    "RecallPoint",
    "RecallReport",
    "Search",
    "exact_positions",
    "measure_recall",
    "recall_at_k",
    "traced_search",
    "tune",
]

Search = Callable[[npt.NDArray[np.float32], Effort], npt.NDArray[np.int32]]

log = logging.getLogger(__name__)

_TIMED_QUERIES = 40
_SCORES_PER_BATCH = 32_000_000  # float32, 128 MB
_ENOUGH = 0.995  # recall beyond which more leaves teach nothing
# Where recall gains less than this in so many steps, reordering is the limit, not leaves.
_LEAST_GAIN, _PATIENCE = 0.002, 3


@dataclass(frozen=True, kw_only=True)
class RecallPoint:
    """What one effort gives.

    Attributes:
        num_leaves_to_search: See `Effort`.
        num_reordering_candidates: See `Effort`.
        recall: Recall@k.
        latency_ms: Time of one query in this process; the tenth percentile, for it is the
            one that other work on the machine disturbs least.
    """

    num_leaves_to_search: int | None
    num_reordering_candidates: int | None
    recall: float
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class RecallReport:
    """Recall against latency of one index, and the point that was chosen.

    Attributes:
        k: Of recall@k.
        num_queries: Query-tower outputs it was measured on.
        target: Recall asked for, or None where the configured effort was kept.
        chosen: The effort in effect.
        curve: Everything that was tried.
    """

    k: int
    num_queries: int
    target: float | None
    chosen: RecallPoint
    curve: tuple[RecallPoint, ...]

    def as_json(self) -> dict[str, Any]:
        """In values that JSON knows."""
        return {**asdict(self), "curve": [asdict(point) for point in self.curve]}


def tune(
    index: CandidateIndex,
    query_embeddings: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
    *,
    target: float | None,
) -> RecallReport:
    """Sets the index's effort to the fastest that reaches `target`.

    Args:
        index: Its effort is changed, unless `target` is None.
        query_embeddings: `[num_queries, d]` real outputs of the query tower.
        exact: `[num_queries, k]` positions of the exact answers.
        target: Recall@k wanted, or None to measure the effort the index has.

    Raises:
        ValueError: No effort reaches the target.
    """
    k = exact.shape[1]
    efforts = [index.effort] if target is None else index.efforts()
    points = measure_recall(index, query_embeddings, exact, efforts)
    reaching = [point for point in points if target is None or point.recall >= target]
    if not reaching:
        best = max(point.recall for point in points)
        raise ValueError(
            f"index {index.index_name} reaches recall@{k} {best:.3f} at most, below the target "
            f"{target}; ask for less with --recall, or publish another index"
        )
    chosen = min(reaching, key=lambda point: point.latency_ms)
    if target is not None:
        index.set_effort(Effort(chosen.num_leaves_to_search, chosen.num_reordering_candidates))
    return RecallReport(
        k=k,
        num_queries=len(query_embeddings),
        target=target,
        chosen=chosen,
        curve=tuple(points),
    )


def measure_recall(
    index: CandidateIndex,
    query_embeddings: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
    efforts: Sequence[Effort] | None = None,
) -> list[RecallPoint]:
    """Recall and latency of some efforts, by default of all that are worth trying.

    With the same reordering candidates, more leaves are tried as long as they help.

    Args:
        index: Its effort stays as it is.
        query_embeddings: `[num_queries, d]`.
        exact: `[num_queries, k]` positions of the exact answers.
        efforts: What to try, from little to much.
    """
    search = traced_search(index, exact.shape[1])
    points: list[RecallPoint] = []
    recalls: dict[int | None, list[float]] = {}
    enough: set[int | None] = set()
    for effort in index.efforts() if efforts is None else efforts:
        if effort.num_reordering_candidates in enough:
            continue
        point = _measure(search, effort, query_embeddings, exact)
        log.info("%s: %s", index.index_name, point)
        points.append(point)
        history = recalls.setdefault(effort.num_reordering_candidates, [])
        history.append(point.recall)
        flat = len(history) > _PATIENCE and point.recall < history[-1 - _PATIENCE] + _LEAST_GAIN
        if point.recall >= _ENOUGH or flat:
            enough.add(effort.num_reordering_candidates)
    return points


def exact_positions(
    query_embeddings: npt.NDArray[np.float32],
    candidate_embeddings: npt.NDArray[np.float32],
    k: int,
) -> npt.NDArray[np.int64]:
    """Positions `[num_queries, k]` of the best candidates, by brute force."""
    k = min(k, len(candidate_embeddings))
    batch = max(1, _SCORES_PER_BATCH // len(candidate_embeddings))
    parts = []
    for start in range(0, len(query_embeddings), batch):
        scores = query_embeddings[start : start + batch] @ candidate_embeddings.T
        parts.append(tf.math.top_k(scores, k=k).indices.numpy())
    return np.concatenate(parts).astype(np.int64)


def recall_at_k(found: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """Share of the exact top k that `found` holds too, mean over queries.

    Args:
        found: Positions `[num_queries, k]`.
        exact: Positions `[num_queries, k]` from brute force.
    """
    return float(np.mean(np.any(found[:, None, :] == exact[:, :, None], axis=2)))


def traced_search(index: CandidateIndex, k: int) -> Search:
    """Search for positions `[batch, k]` that takes the effort as tensors: traced only once."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, index.dimension], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
        ]
    )
    def search(queries: tf.Tensor, leaves: tf.Tensor, reordered: tf.Tensor) -> tf.Tensor:
        effort = Effort(
            num_leaves_to_search=None if index.effort.num_leaves_to_search is None else leaves,
            num_reordering_candidates=(
                None if index.effort.num_reordering_candidates is None else reordered
            ),
        )
        return index.search(queries, k, effort)[1]

    def call(queries: npt.NDArray[np.float32], effort: Effort) -> npt.NDArray[np.int32]:
        leaves = effort.num_leaves_to_search or 0
        found: npt.NDArray[np.int32] = search(
            queries, leaves, effort.num_reordering_candidates or 0
        ).numpy()
        return found

    return call


def _measure(
    search: Search,
    effort: Effort,
    query_embeddings: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
) -> RecallPoint:
    found = np.concatenate(
        [search(part, effort) for part in np.array_split(query_embeddings, _parts(exact))]
    )
    latencies = []
    for row in range(min(_TIMED_QUERIES, len(query_embeddings))):
        start = time.perf_counter()
        search(query_embeddings[row : row + 1], effort)
        latencies.append(time.perf_counter() - start)
    return RecallPoint(
        **effort._asdict(),
        recall=round(recall_at_k(found, exact), 4),
        latency_ms=round(float(np.percentile(latencies, 10)) * 1e3, 4),
    )


def _parts(exact: npt.NDArray[np.int64]) -> int:
    """Batches of about 64 queries."""
    return -(-len(exact) // 64)
