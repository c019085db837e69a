"""An inverted-file index made of core TensorFlow ops, which any stock server runs."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import IvfConfig
from shortlist.export.index.base import CandidateIndex, Effort, best_first, check_candidates
from shortlist.export.index.leaf_rows import LeafRows, inner_products
from shortlist.export.index.partition import (
    ROOM,
    Partition,
    RebuildError,
    place_in_partition,
    train_partition,
)
from shortlist.export.index.previous import MOST_CHANGE, Leaves

__all__ = ["IvfIndex", "multiplies_bfloat16"]

Answers = tuple[tf.Tensor, tf.Tensor]
# An integer if it is known at tracing time, so that shapes computed from it cost no ops.
Count: TypeAlias = int | tf.Tensor

_LEAVES_TO_SEARCH = 64
_REORDERING_CANDIDATES = 200
_WIDTH_STEP, _WIDTHS_PER_ROOT, _MOST_WIDTH = 16, 1 / 256, 64  # 16 places up to 64 at a million
_GROUP_SIZE, _GROUPS_FROM = 16, 2048  # leaves; fewer leaves are all ranked
# Leaves that a query ranks per leaf that it searches, and groups that it looks at in any case: 60
# up to a million candidates, 190 at ten million.
_LEAVES_RANKED, _GROUPS_AT_LEAST, _GROUPS_PER_ROOT = 2, 60, 1.85
_PREFILTER_FROM = 20_000  # candidates; with fewer, whole rows are as fast
_PREFILTER_ENERGY = 0.85  # share of the variance that the leading directions must hold
_COVARIANCE_SAMPLE = 100_000
_LEAF_DIRECTIONS = 0.75  # share of the leading directions; all rank leaves no better
# Expected place of a leaf's best candidate, in standard deviations from the mean: 1.75 to 2.75
# are equally good.
_REACH = 2.5
# Queries of a batch that are scored at once, and rows that limit them: the data should fit into
# the cache, and must fit into memory for any k.
_QUERIES_AT_ONCE, _ROWS_AT_ONCE = 8, 250_000
_MOST_PLACED = 0.25  # share of the candidates to place in previous leaves
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


class IvfIndex(CandidateIndex):
    """Scores the candidates of the leaves that suit the query best.

    All leaves have the same number of places, so that a query gathers whole leaves and
    nothing is ragged. Leaves are ranked by centroid and spread; if there are many, groups of
    leaves are ranked first. On a large corpus whose embeddings vary in few directions, leaves
    and rows are first scored in those alone, then the best rows in full. docs/indexes.md
    lists the alternatives that were tried.
    """

    index_name = "ivf"

    def __init__(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        candidate_ids: Sequence[str],
        config: IvfConfig,
        previous: Leaves | None = None,
    ) -> None:
        """Divide the candidates into leaves, or place new ones in those of a previous index.

        Raises:
            RebuildError: The previous leaves do not suit the candidates.
            ValueError: See `check_candidates`.
        """
        super().__init__()
        check_candidates(candidate_embeddings, candidate_ids)
        n, self.dimension = candidate_embeddings.shape
        self.num_candidates = n
        leaves = _divide(candidate_embeddings, config, previous)
        self._num_leaves, self._group_size = len(leaves.members), leaves.group_size
        moments = _second_moments(candidate_embeddings)
        directions = _directions(moments, n, config)
        self._row_type = _choose_row_type(n, config.row_type)
        self._reorders = directions is not None or self._row_type != "float32"
        self._store_rows(candidate_embeddings, leaves, directions)
        self._store_leaves(candidate_embeddings, leaves, moments)
        self.set_effort(
            Effort(
                num_leaves_to_search=config.num_leaves_to_search or _LEAVES_TO_SEARCH,
                num_reordering_candidates=config.num_reordering_candidates
                or _REORDERING_CANDIDATES,
            )
        )

    def _store_rows(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        leaves: Partition,
        directions: npt.NDArray[np.float32] | None,
    ) -> None:
        rows = candidate_embeddings if directions is None else candidate_embeddings @ directions
        self._directions = None if directions is None else _frozen(directions, "directions")
        self._rows = LeafRows(
            rows,
            leaves.members,
            row_type=self._row_type,
            transposed=self._reorders and self._row_type != "bfloat16",
        )
        if self._reorders:
            self._embeddings = _frozen(candidate_embeddings, "embeddings")
        else:
            row_of = np.empty(self.num_candidates + 1, np.int32)
            row_of[leaves.members.ravel()] = np.arange(leaves.members.size)
            self._row_of = _frozen(row_of[:-1], "row_of")

    def _store_leaves(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        leaves: Partition,
        moments: npt.NDArray[np.float64],
    ) -> None:
        """Store what ranks leaves: centroids meet a query, spreads meet its length."""
        self._leaf_directions = self.dimension
        if self._directions is not None:
            self._leaf_directions = round(_LEAF_DIRECTIONS * self._rows.vector_length)

        def ranking(parts: Partition) -> npt.NDArray[np.float32]:
            centroids = parts.centroids
            if self._directions is not None:
                centroids = centroids @ self._directions.numpy()[:, : self._leaf_directions]
            spreads = _REACH * parts.spreads(candidate_embeddings, moments)
            return np.concatenate([centroids, spreads[:, None]], axis=1)

        by_group = ranking(leaves).reshape(-1, self._group_size, self._leaf_directions + 1)
        self._groups = None
        if len(by_group) == 1:
            self._leaves = _frozen(np.ascontiguousarray(by_group[0].T), "leaves")
            return
        self._leaves = _frozen(by_group, "leaves")
        self._groups = _frozen(np.ascontiguousarray(ranking(leaves.groups()).T), "groups")
        numbers = np.arange(self._num_leaves, dtype=np.int32).reshape(-1, self._group_size)
        self._leaf_numbers = _frozen(numbers, "leaf_numbers")

    def set_effort(self, effort: Effort) -> None:
        """Change the effort of `search`."""
        self.effort = Effort(
            num_leaves_to_search=min(effort.num_leaves_to_search or 1, self._num_leaves),
            num_reordering_candidates=(
                effort.num_reordering_candidates if self._reorders else None
            ),
        )
        self.exact = not self._reorders and self.effort.num_leaves_to_search == self._num_leaves

    def efforts(self) -> list[Effort]:
        """Return the efforts worth trying, lowest first."""
        leaves = sorted({min(round(4 * 1.25**i), self._num_leaves) for i in range(31)})
        reordered = [64, 100, 150, 250, 400] if self._reorders else [None]
        return [
            Effort(num_leaves_to_search=count, num_reordering_candidates=candidates)
            for count in leaves
            for candidates in reordered
        ]

    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor, effort: Effort | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best candidates of each query."""
        return self._search(query_embeddings, k, effort or self.effort, None)

    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best allowed candidates; the fewer are allowed, the more it searches."""
        factor = self.num_candidates / tf.maximum(tf.math.count_nonzero(allowed), 1)
        leaves = tf.cast(tf.math.ceil(self.effort.num_leaves_to_search * factor), tf.int32)
        effort = self.effort._replace(num_leaves_to_search=leaves)
        return self._search(query_embeddings, k, effort, tf.pad(allowed, [[0, 1]]))

    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """Return the embeddings of some candidates."""
        # Read before gathering, see `LeafRows`.
        if self._reorders:
            return tf.gather(tf.convert_to_tensor(self._embeddings), positions)
        rows = tf.gather(tf.convert_to_tensor(self._row_of), positions)
        return tf.gather(self._rows.all_rows(), rows)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters in effect."""
        return {
            "num_leaves": self._num_leaves,
            **self.effort._asdict(),
            "prefilter_dimensions": (
                None if self._directions is None else self._rows.vector_length
            ),
            "row_type": self._row_type,
        }

    def _search(
        self,
        query_embeddings: tf.Tensor,
        k: Count,
        effort: Effort,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        rows, reordered = self._rows, effort.num_reordering_candidates
        # Any leaves that are searched hold k candidates, and so do the best places.
        places = k * rows.most_copies
        needed = (places + rows.width - 1) // rows.width
        num_leaves = effort.num_leaves_to_search
        searched = _larger(1 if num_leaves is None else num_leaves, needed)
        searched = _smaller(searched, self._num_leaves)
        count = _larger(0 if reordered is None else reordered, places)
        count = _smaller(count, searched * rows.width)

        def find(queries: tf.Tensor) -> Answers:
            short = queries
            if self._directions is not None:
                short = tf.matmul(queries, self._directions)
            leaves = self._best_leaves(queries, short, searched)
            if self.exact:
                return self._score_exactly(queries, leaves, k, allowed)
            scores, positions = self._score_roughly(short, leaves, count, allowed)
            if reordered is not None:
                # In ascending order, so that equal scores are ordered by position;
                # `best_first` takes a dozen more ops.
                positions = -tf.math.top_k(-positions, k=count)[0]
                rows_in_full = self.embeddings(tf.minimum(positions, self.num_candidates - 1))
                scores = inner_products(queries, rows_in_full)
            # `where` with a scalar broadcasts, which takes longer.
            occupied = positions < self.num_candidates
            scores = tf.raw_ops.Select(condition=occupied, x=scores, y=scores - math.inf)
            if reordered is None:
                return best_first(scores, positions, k)
            scores, columns = tf.math.top_k(scores, k=k)
            return scores, tf.gather(positions, columns, batch_dims=1)

        gathered = searched * rows.width + count + self._num_leaves
        at_once = _smaller(_larger(_ROWS_AT_ONCE // gathered, 1), _QUERIES_AT_ONCE)
        queries = tf.ensure_shape(query_embeddings, [None, self.dimension])
        return _in_parts(find, queries, at_once)

    def _best_leaves(self, queries: tf.Tensor, short: tf.Tensor, searched: Count) -> tf.Tensor:
        """Return the leaves to search, `[batch, searched]`, best first.

        `top_k` over their rows takes half the time if the best rows come first.
        """
        lengths = tf.math.reduce_euclidean_norm(queries, axis=1, keepdims=True)
        heads = tf.concat([short[:, : self._leaf_directions], lengths], axis=1)
        if self._groups is None:
            return tf.math.top_k(tf.matmul(heads, self._leaves), k=searched)[1]
        all_groups = self._num_leaves // self._group_size
        groups = -(-searched * _LEAVES_RANKED // self._group_size)
        groups += max(_GROUPS_AT_LEAST, round(math.sqrt(all_groups) * _GROUPS_PER_ROOT))
        groups = _smaller(groups, all_groups)
        best = tf.math.top_k(tf.matmul(heads, self._groups), k=groups)[1]
        # Read before gathering, see `LeafRows`.
        leaves = tf.gather(tf.convert_to_tensor(self._leaves), best)
        shape = [-1, groups * self._group_size]
        leaves = tf.reshape(leaves, [-1, shape[1], self._leaf_directions + 1])
        scores = inner_products(heads, leaves)
        numbers = tf.gather(tf.convert_to_tensor(self._leaf_numbers), best)
        chosen = tf.math.top_k(scores, k=searched)[1]
        return tf.gather(tf.reshape(numbers, shape), chosen, batch_dims=1)

    def _score_exactly(
        self, queries: tf.Tensor, leaves: tf.Tensor, k: Count, allowed: tf.Tensor | None
    ) -> Answers:
        """Return the best k of some leaves, equal scores by position; rows are embeddings."""
        positions = self._rows.positions(leaves)
        n = self.num_candidates
        counts = positions < n if allowed is None else tf.gather(allowed, positions)
        scores = tf.where(counts, self._rows.scores(queries, leaves), -math.inf)
        return best_first(scores, tf.where(counts, positions, n), k)

    def _score_roughly(
        self, queries: tf.Tensor, leaves: tf.Tensor, count: Count, allowed: tf.Tensor | None
    ) -> Answers:
        """Return the best `count` rows of some leaves, unordered; position n for none."""
        scores = self._rows.scores(queries, leaves)
        if allowed is not None:
            allows = tf.gather(allowed, self._rows.positions(leaves))
            scores = tf.where(allows, scores, -math.inf)
        scores, columns = tf.math.top_k(scores, k=count, sorted=False)
        positions = self._rows.positions(leaves, columns)
        if allowed is not None:
            allows = tf.gather(allowed, positions)
            positions = tf.where(allows, positions, self.num_candidates)
        return scores, positions


def _in_parts(find: Callable[[tf.Tensor], Answers], queries: tf.Tensor, at_once: Count) -> Answers:
    """Answer a batch of queries, a few at a time.

    At 1M x 64 a batch of 64 in one go takes a quarter longer. A single query has its own
    graph with products of matrices instead of batches of them. The loop is a function that is
    not inlined, so that its ops cost a single query nothing.
    """
    batch, dimension = tf.shape(queries)[0], queries.shape[1]

    def find_one() -> Answers:
        # Set while tracing only: from `ensure_shape` or `reshape` TensorFlow's optimizer
        # would conclude that every batch has one query, and break the others.
        query = tf.identity(queries)
        query.set_shape([1, dimension])
        return find(query)

    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def find_each(queries: tf.Tensor) -> Answers:
        parts = tf.maximum(-(-batch // at_once), 1)
        each = -(-batch // parts)

        def join(values: tf.Tensor) -> tf.Tensor:
            return tf.reshape(values, [parts * each, tf.shape(values)[2]])[:batch]

        padded = tf.pad(queries, [[0, parts * each - batch], [0, 0]])
        scores, positions = tf.map_fn(
            find,
            tf.reshape(padded, [parts, each, dimension]),
            parallel_iterations=1,
            fn_output_signature=(tf.float32, tf.int32),
        )
        return join(scores), join(positions)

    return tf.cond(batch == 1, find_one, lambda: find_each(queries))


def _divide(
    candidate_embeddings: npt.NDArray[np.float32], config: IvfConfig, previous: Leaves | None
) -> Partition:
    """Train a partition, or place what is new in the previous one."""
    n = len(candidate_embeddings)
    num_leaves, group_size = _choose_leaves(n, config.num_leaves)
    if previous is None:
        return train_partition(candidate_embeddings, num_leaves, config, group_size=group_size)
    count, unplaced = len(previous.members), previous.unplaced()
    change = num_leaves / count
    if count > n or max(change, 1 / change) > MOST_CHANGE:
        raise RebuildError(f"{n:,} candidates need {num_leaves:,} leaves instead of {count:,}")
    if unplaced > _MOST_PLACED * n:
        raise RebuildError(f"{unplaced:,} of {n:,} candidates are new")
    return place_in_partition(
        candidate_embeddings, previous.members, config, group_size=previous.group_size
    )


def _choose_leaves(num_candidates: int, num_leaves: int | None) -> tuple[int, int]:
    """Return the number of leaves and the size of a group, which is all of them if they are few.

    Many small leaves need fewer rows for the same recall, until ranking them costs more.
    """
    if num_leaves is None:
        steps = round(math.sqrt(num_candidates) * _WIDTHS_PER_ROOT)
        width = min(max(1, steps) * _WIDTH_STEP, _MOST_WIDTH)
        num_leaves = math.ceil(num_candidates * ROOM / width)
        if num_leaves > _GROUPS_FROM:
            num_leaves = math.ceil(num_leaves / _GROUP_SIZE) * _GROUP_SIZE
    num_leaves = min(num_leaves, num_candidates)
    if num_leaves <= _GROUPS_FROM:
        return num_leaves, num_leaves
    return num_leaves // _GROUP_SIZE * _GROUP_SIZE, _GROUP_SIZE


def _choose_row_type(num_candidates: int, row_type: str) -> str:
    """Return bfloat16 if the processor multiplies it; otherwise float32 is faster."""
    if row_type != "auto":
        return row_type
    fast = num_candidates >= _PREFILTER_FROM and multiplies_bfloat16()
    return "bfloat16" if fast else "float32"


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether TensorFlow has bfloat16 instructions here; false if that is unknown.

    Args:
        cpuinfo: Linux's description of the processor.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.split(":", 1)[1].split() for line in lines if line.startswith("flags"))
    return not _BFLOAT16_FLAGS.isdisjoint(next(flags, []))


def _smaller(first: Count, second: Count) -> Count:
    known = isinstance(first, int) and isinstance(second, int)
    return min(first, second) if known else tf.minimum(first, second)


def _larger(first: Count, second: Count) -> Count:
    known = isinstance(first, int) and isinstance(second, int)
    return max(first, second) if known else tf.maximum(first, second)


def _frozen(value: Any, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, name=name)


def _second_moments(candidate_embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return `[d, d]` second moments, not covariances: inner products include the mean."""
    step = max(1, len(candidate_embeddings) // _COVARIANCE_SAMPLE)
    sample = candidate_embeddings[::step].astype(np.float64)
    return np.asarray(sample.T @ sample / len(sample))


def _directions(
    moments: npt.NDArray[np.float64], num_candidates: int, config: IvfConfig
) -> npt.NDArray[np.float32] | None:
    """Return the leading directions `[d, p]` to score rows by, or None for all."""
    d = len(moments)
    if config.prefilter_dimensions is None and (num_candidates < _PREFILTER_FROM or d < 32):
        return None
    if config.prefilter_dimensions is not None and config.prefilter_dimensions >= d:
        return None
    energies, directions = np.linalg.eigh(moments)
    energies, directions = energies[::-1], directions[:, ::-1]
    count = config.prefilter_dimensions
    if count is None:
        shares = np.cumsum(energies) / np.sum(energies)
        count = 8 * math.ceil((int(np.argmax(shares >= _PREFILTER_ENERGY)) + 1) / 8)
        if count > d // 2:
            return None
    return np.ascontiguousarray(directions[:, :count].astype(np.float32))
