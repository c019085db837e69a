"""Choose the search effort of an index: the fastest that reaches a recall."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.index.base import CandidateIndex, Effort
from shortlist.export.index.previous import PreviousIndex
from shortlist.export.index.turns import Turns, time_in_turns

__all__ = [
    "Exploration",
    "RecallPoint",
    "RecallReport",
    "Search",
    "exact_positions",
    "explore",
    "recall_at_k",
    "retune",
    "traced_search",
    "tune",
]

Search = Callable[[npt.NDArray[np.float32], Effort], npt.NDArray[np.int32]]

log = logging.getLogger(__name__)

_TIMED_QUERIES = 40
_QUERIES_PER_BATCH = 64
_SCORES_PER_BATCH = 32_000_000  # float32, 128 MB
_ENOUGH = 0.995  # recall beyond which more leaves show nothing new
# If recall gains less than this in this many steps, reordering is the limit, not leaves.
_LEAST_GAIN, _PATIENCE = 0.002, 3
# Bisection of leaves between a point that misses and one that reaches: steps, and relative gap.
_REFINEMENTS, _CLOSE = 4, 0.04
# A point this many times slower than the fastest may still be the fastest: times are noisy.
_MAYBE_FASTEST = 1.2
# More leaves than the last exploration chose, by which an index made from another may be slower.
_MORE_LEAVES = (1.06, 1.12, 1.25)
_FINAL_TURNS = Turns(count=60, block=12, untimed=2, seconds=3.0, least=6)


@dataclass(frozen=True, kw_only=True)
class RecallPoint:
    """Recall and latency of one effort.

    Attributes:
        num_leaves_to_search: Leaves per query.
        num_reordering_candidates: Best candidates by rough scores, which are scored exactly.
        recall: Recall@k.
        latency_ms: Time of one query in this process; the tenth percentile, which other
            work on the machine disturbs least.
    """

    num_leaves_to_search: int | None
    num_reordering_candidates: int | None
    recall: float
    latency_ms: float

    @property
    def effort(self) -> Effort:
        """The effort that was measured."""
        return Effort(self.num_leaves_to_search, self.num_reordering_candidates)


@dataclass(frozen=True, kw_only=True)
class RecallReport:
    """Recall against latency of one index, and the chosen point.

    Attributes:
        k: Cut-off of recall@k.
        num_queries: Query-tower outputs that it was measured with.
        target: Requested recall, or None if the configured effort was kept.
        chosen: Point of the effort in effect.
        curve: All measured points.
        explored_leaves: Leaves to search that the last exploration chose, of this index or one
            that it was made from.
    """

    k: int
    num_queries: int
    target: float | None
    chosen: RecallPoint
    curve: tuple[RecallPoint, ...]
    explored_leaves: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "curve": [asdict(point) for point in self.curve]}


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """Measured points, and the best of them.

    Attributes:
        curve: All measured points.
        chosen: Fastest point by target recall; targets out of reach are missing.
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
    """Set the index's effort to the fastest that reaches `target`.

    Args:
        index: Index to change, unless `target` is None.
        query_embeddings: `[num_queries, d]` real outputs of the query tower.
        exact: `[num_queries, k]` positions of the exact answers.
        target: Recall@k to reach, or None to measure the current effort only.

    Raises:
        ValueError: No effort reaches the target.
    """
    k = exact.shape[1]
    if target is None:
        chosen = _Trial(index, query_embeddings, exact).measure(index.effort)
        curve: tuple[RecallPoint, ...] = (chosen,)
    else:
        exploration = explore(index, query_embeddings, exact, [target])
        curve = exploration.curve
        if target not in exploration.chosen:
            best = max(point.recall for point in curve)
            raise ValueError(
                f"index {index.index_name} reaches recall@{k} {best:.3f} at most, below the "
                f"target {target}; lower --recall, or publish another index"
            )
        chosen = exploration.chosen[target]
        index.set_effort(chosen.effort)
    return RecallReport(
        k=k,
        num_queries=len(query_embeddings),
        target=target,
        chosen=chosen,
        curve=curve,
        explored_leaves=None if target is None else chosen.num_leaves_to_search,
    )


def retune(
    index: CandidateIndex,
    query_embeddings: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
    *,
    target: float | None,
    previous: PreviousIndex,
) -> RecallReport | None:
    """Set the effort of an index made from another to that one's, or little more.

    Returns:
        The recall, as `tune` does; None if no such effort reaches the target.
    """
    if target is None:
        return tune(index, query_embeddings, exact, target=None)
    leaves, reordered = previous.effort
    parts = zip(previous.effort, index.effort, strict=True)
    if any((before is None) != (now is None) for before, now in parts):
        return None  # for another way of scoring
    explored = previous.explored_leaves or leaves
    more = [] if explored is None else [math.ceil(step * explored) for step in _MORE_LEAVES]
    trial = _Trial(index, query_embeddings, exact)
    points: list[RecallPoint] = []
    for count in [leaves, *(count for count in more if leaves is not None and count > leaves)]:
        index.set_effort(Effort(count, reordered))  # limits it
        points.append(trial.measure(index.effort))
        if points[-1].recall >= target:
            return RecallReport(
                k=exact.shape[1],
                num_queries=len(query_embeddings),
                target=target,
                chosen=points[-1],
                curve=tuple(points),
                explored_leaves=explored,
            )
    return None


def explore(
    index: CandidateIndex,
    query_embeddings: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
    targets: Sequence[float],
) -> Exploration:
    """Measure the efforts worth trying, and choose one for each target.

    The index's own efforts come first. Between the last that misses a target and the first
    that reaches it, the number of leaves is bisected; the best for each number of reordering
    candidates are timed again, in turns.

    Args:
        index: Index to measure; its effort does not change.
        query_embeddings: `[num_queries, d]`.
        exact: `[num_queries, k]` positions of the exact answers.
        targets: Values of recall@k to reach; empty to measure only.
    """
    trial = _Trial(index, query_embeddings, exact)
    points = _measure_all(trial, index.efforts())
    for target in targets:
        points += _refined(trial, points, target)
    finalists = {target: _finalists(points, target) for target in targets}
    rivals = [reaching for reaching in finalists.values() if len(reaching) > 1]
    efforts = {point.effort for reaching in rivals for point in reaching}
    latencies = trial.time(sorted(efforts, key=lambda effort: [part or 0 for part in effort]))
    points = [_with_latency(point, latencies) for point in points]
    chosen = {
        target: min(
            (_with_latency(point, latencies) for point in reaching),
            key=lambda point: point.latency_ms,
        )
        for target, reaching in finalists.items()
        if reaching
    }
    return Exploration(curve=tuple(points), chosen=chosen)


class _Trial:
    """An index with queries whose exact answers are known."""

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
        """Measure recall and latency of one effort."""
        parts = -(-len(self._queries) // _QUERIES_PER_BATCH)
        answers = [self._search(part, effort) for part in np.array_split(self._queries, parts)]
        turns = Turns(
            count=self._num_timed, block=self._num_timed, untimed=0, seconds=5.0, least=10
        )
        point = RecallPoint(
            **effort._asdict(),
            recall=round(recall_at_k(np.concatenate(answers), self._exact), 4),
            latency_ms=self._latencies([effort], turns)[effort],
        )
        log.info("%s: %s", self._name, point)
        return point

    def time(self, efforts: Sequence[Effort]) -> dict[Effort, float]:
        """Return the latency of each effort, timed in turns."""
        return self._latencies(efforts, _FINAL_TURNS)

    def _latencies(self, efforts: Sequence[Effort], turns: Turns) -> dict[Effort, float]:
        def search_with(effort: Effort) -> Callable[[int], object]:
            def call(i: int) -> object:
                row = i % len(self._queries)
                return self._search(self._queries[row : row + 1], effort)

            return call

        times = time_in_turns({effort: search_with(effort) for effort in efforts}, turns)
        return {
            effort: round(float(np.percentile(timed.elapsed_ms, 10)), 4)
            for effort, timed in times.items()
        }


def _measure_all(trial: _Trial, efforts: Sequence[Effort]) -> list[RecallPoint]:
    """Measure efforts, lowest first; skip those that only add leaves which no longer help."""
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
    """Return points between the last that misses the target and the first that reaches it."""
    refined: list[RecallPoint] = []
    reaching = _fewest_leaves(points, target)
    fastest = min((point.latency_ms for point in reaching), default=0.0)
    for high in sorted(reaching, key=lambda point: point.latency_ms):
        low = _next_below(points, high)
        # Except for noise, any point between takes longer than the one that misses.
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
    """Return the first point that reaches the target, per number of reordering candidates."""
    fewest: dict[int | None, RecallPoint] = {}
    for point in sorted(points, key=lambda point: point.num_leaves_to_search or 0):
        if point.recall >= target:
            fewest.setdefault(point.num_reordering_candidates, point)
    return list(fewest.values())


def _next_below(points: Sequence[RecallPoint], high: RecallPoint) -> RecallPoint | None:
    """Return the nearest point with fewer leaves and as many reordering candidates."""
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
    """Return points that reach the target and may be the fastest.

    With equally many reordering candidates, more leaves are always more work.
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
    """Return positions `[num_queries, k]` of the best candidates, by brute force."""
    k = min(k, len(candidate_embeddings))
    batch = max(1, _SCORES_PER_BATCH // len(candidate_embeddings))
    parts = []
    for start in range(0, len(query_embeddings), batch):
        scores = query_embeddings[start : start + batch] @ candidate_embeddings.T
        parts.append(tf.math.top_k(scores, k=k).indices.numpy())
    return np.concatenate(parts).astype(np.int64)


def recall_at_k(answers: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """Return the share of the exact top k that `answers` also holds, mean over queries.

    Args:
        answers: Positions `[num_queries, k]`.
        exact: Positions `[num_queries, k]` from brute force.
    """
    return float(np.mean(np.any(answers[:, None, :] == exact[:, :, None], axis=2)))


def traced_search(index: CandidateIndex, k: int) -> Search:
    """Return a search for positions `[batch, k]`, traced once for all efforts."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, index.dimension], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.int32),
        ],
        autograph=False,
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
        positions: npt.NDArray[np.int32] = search(
            queries, leaves, effort.num_reordering_candidates or 0
        ).numpy()
        return positions

    return call
