"""Chooses how hard an index tries: the least effort that reaches a recall."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.index.base import CandidateIndex, Effort
from shortlist.export.index.turns import Turns, time_in_turns

__all__ = [
    "Exploration",
    "RecallPoint",
    "RecallReport",
    "Search",
    "exact_positions",
    "explore",
    "recall_at_k",
    "traced_search",
    "tune",
]

Search = Callable[[npt.NDArray[np.float32], Effort], npt.NDArray[np.int32]]

log = logging.getLogger(__name__)

_TIMED_QUERIES = 40
_QUERIES_PER_BATCH = 64
_SCORES_PER_BATCH = 32_000_000  # float32, 128 MB
_ENOUGH = 0.995  # recall beyond which more leaves teach nothing
# Where recall gains less than this in so many steps, reordering is the limit, not leaves.
_LEAST_GAIN, _PATIENCE = 0.002, 3
# Leaves between a point that misses and one that reaches: halved so often, or until this close.
_REFINEMENTS, _CLOSE = 4, 0.04
# Times as slow as the fastest, a point may yet be faster: times are noisy.
_MAYBE_FASTEST = 1.2
_FINAL_TURNS = Turns(count=60, block=12, untimed=2, seconds=3.0, least=6)


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

    @property
    def effort(self) -> Effort:
        """The effort that gives it."""
        return Effort(self.num_leaves_to_search, self.num_reordering_candidates)


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


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What was tried, and what is best of it.

    Attributes:
        curve: Everything that was tried.
        chosen: The fastest that reaches a target, by target; one out of reach is missing.
    """

    curve: tuple[RecallPoint, ...]
    chosen: Mapping[float, RecallPoint]


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
    if target is None:
        chosen = _Trial(index, query_embeddings, exact).measure(index.effort)
        curve: tuple[RecallPoint, ...] = (chosen,)
    else:
        found = explore(index, query_embeddings, exact, [target])
        curve = found.curve
        if target not in found.chosen:
            best = max(point.recall for point in curve)
            raise ValueError(
                f"index {index.index_name} reaches recall@{k} {best:.3f} at most, below the "
                f"target {target}; ask for less with --recall, or publish another index"
            )
        chosen = found.chosen[target]
        index.set_effort(chosen.effort)
    return RecallReport(
        k=k,
        num_queries=len(query_embeddings),
        target=target,
        chosen=chosen,
        curve=curve,
    )


def explore(
    index: CandidateIndex,
    query_embeddings: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
    targets: Sequence[float],
) -> Exploration:
    """Measures the efforts that are worth trying, and chooses one for each target.

    The index's own efforts come first. Between the last that misses a target and the first
    that reaches it, numbers of leaves are halved until they are close; the best of each
    number of reordering candidates are timed once more, in turns.

    Args:
        index: Its effort stays as it is.
        query_embeddings: `[num_queries, d]`.
        exact: `[num_queries, k]` positions of the exact answers.
        targets: Values of recall@k wanted; none to measure only.
    """
    trial = _Trial(index, query_embeddings, exact)
    points = _measure_all(trial, index.efforts())
    for target in targets:
        points += _refined(trial, points, target)
    finalists = {target: _finalists(points, target) for target in targets}
    efforts = {point.effort for some in finalists.values() if len(some) > 1 for point in some}
    latencies = trial.time(sorted(efforts, key=lambda effort: [part or 0 for part in effort]))
    points = [_with_latency(point, latencies) for point in points]
    chosen = {
        target: min(
            (_with_latency(point, latencies) for point in some), key=lambda point: point.latency_ms
        )
        for target, some in finalists.items()
        if some
    }
    return Exploration(curve=tuple(points), chosen=chosen)


class _Trial:
    """An index on trial, with queries whose exact answers are known."""

    def __init__(
        self,
        index: CandidateIndex,
        query_embeddings: npt.NDArray[np.float32],
        exact: npt.NDArray[np.int64],
    ) -> None:
        self._name = index.index_name
        self._search = traced_search(index, exact.shape[1])
        self._queries, self._exact = query_embeddings, exact
        self._num_timed = min(_TIMED_QUERIES, len(query_embeddings))

    def measure(self, effort: Effort) -> RecallPoint:
        """Recall and latency of one effort."""
        parts = -(-len(self._queries) // _QUERIES_PER_BATCH)
        found = [self._search(part, effort) for part in np.array_split(self._queries, parts)]
        turns = Turns(
            count=self._num_timed, block=self._num_timed, untimed=0, seconds=5.0, least=10
        )
        point = RecallPoint(
            **effort._asdict(),
            recall=round(recall_at_k(np.concatenate(found), self._exact), 4),
            latency_ms=self._latencies([effort], turns)[effort],
        )
        log.info("%s: %s", self._name, point)
        return point

    def time(self, efforts: Sequence[Effort]) -> dict[Effort, float]:
        """Latency of each effort, timed in turns."""
        return self._latencies(efforts, _FINAL_TURNS)

    def _latencies(self, efforts: Sequence[Effort], turns: Turns) -> dict[Effort, float]:
        def search_with(effort: Effort) -> Callable[[int], object]:
            def call(i: int) -> object:
                row = i % len(self._queries)
                return self._search(self._queries[row : row + 1], effort)

            return call

        times = time_in_turns({effort: search_with(effort) for effort in efforts}, turns)
        return {
            effort: round(float(np.percentile(one.elapsed_ms, 10)), 4)
            for effort, one in times.items()
        }


def _measure_all(trial: _Trial, efforts: Sequence[Effort]) -> list[RecallPoint]:
    """Of efforts from little to much; with as many reordering candidates only while it helps."""
    points: list[RecallPoint] = []
    recalls: dict[int | None, list[float]] = {}
    enough: set[int | None] = set()
    for effort in efforts:
        if effort.num_reordering_candidates in enough:
            continue
        point = trial.measure(effort)
        points.append(point)
        history = recalls.setdefault(effort.num_reordering_candidates, [])
        history.append(point.recall)
        flat = len(history) > _PATIENCE and point.recall < history[-1 - _PATIENCE] + _LEAST_GAIN
        if point.recall >= _ENOUGH or flat:
            enough.add(effort.num_reordering_candidates)
    return points


def _refined(trial: _Trial, points: Sequence[RecallPoint], target: float) -> list[RecallPoint]:
    """Points between the last that misses the target and the first that reaches it."""
    refined: list[RecallPoint] = []
    reaching = _fewest_leaves(points, target)
    fastest = min((point.latency_ms for point in reaching), default=0.0)
    for high in sorted(reaching, key=lambda point: point.latency_ms):
        low = _next_below(points, high)
        # Whatever lies between takes longer than the one that misses, but for noise.
        if low is None or low.latency_ms > _MAYBE_FASTEST * fastest:
            continue
        for _ in range(_REFINEMENTS):
            below, above = low.num_leaves_to_search or 0, high.num_leaves_to_search or 0
            if above - below <= max(1, _CLOSE * above):
                break
            effort = high.effort._replace(num_leaves_to_search=(below + above) // 2)
            point = trial.measure(effort)
            refined.append(point)
            low, high = (low, point) if point.recall >= target else (point, high)
        fastest = min(fastest, high.latency_ms)
    return refined


def _fewest_leaves(points: Sequence[RecallPoint], target: float) -> list[RecallPoint]:
    """Of each number of reordering candidates, the point that reaches the target by least."""
    fewest: dict[int | None, RecallPoint] = {}
    for point in sorted(points, key=lambda point: point.num_leaves_to_search or 0):
        if point.recall >= target:
            fewest.setdefault(point.num_reordering_candidates, point)
    return list(fewest.values())


def _next_below(points: Sequence[RecallPoint], high: RecallPoint) -> RecallPoint | None:
    """The point with the most leaves below, and as many reordering candidates."""
    leaves = high.num_leaves_to_search
    below = [
        point
        for point in points
        if point.num_reordering_candidates == high.num_reordering_candidates
        and point.num_leaves_to_search is not None
        and leaves is not None
        and point.num_leaves_to_search < leaves
    ]
    return max(below, key=lambda point: point.num_leaves_to_search or 0, default=None)


def _finalists(points: Sequence[RecallPoint], target: float) -> list[RecallPoint]:
    """Those that reach the target and may be the fastest.

    With as many reordering candidates more leaves are more work, whatever noise says.
    """
    reaching = _fewest_leaves(points, target)
    fastest = min((point.latency_ms for point in reaching), default=0.0)
    return [point for point in reaching if point.latency_ms <= _MAYBE_FASTEST * fastest]


def _with_latency(point: RecallPoint, latencies: Mapping[Effort, float]) -> RecallPoint:
    return replace(point, latency_ms=latencies.get(point.effort, point.latency_ms))


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
