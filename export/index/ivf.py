"""An inverted-file index in core TensorFlow ops, which any stock server runs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export._tf import tf
from export.config import IvfConfig
from export.index.base import CandidateIndex, Effort, best_first, check_candidates
from export.index.partition import Partition, train_partition

__all__ = ["IvfIndex"]

_LEAVES_TO_SEARCH = 40
_REORDERING_CANDIDATES = 200
_PREFILTER_FROM = 20_000  # candidates; below, the whole rows are as fast
_PREFILTER_ENERGY = 0.8  # share of the variance that the leading directions must hold
_COVARIANCE_SAMPLE = 100_000


class IvfIndex(CandidateIndex):
    """Scores the candidates of the leaves whose centroids suit the query best.

    Each leaf is a run of blocks of a few rows, so that a query gathers some hundred
    blocks instead of ten thousand rows. On a large corpus whose embeddings vary in few
    directions the blocks hold only those, a quarter of the bytes, and the best rows
    are then scored in full. docs/indexes.md has what else was tried.
    """

    index_name = "ivf"

    def __init__(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        candidate_ids: Sequence[str],
        config: IvfConfig,
    ) -> None:
        super().__init__()
        check_candidates(candidate_embeddings, candidate_ids)
        n, self.dimension = candidate_embeddings.shape
        self.num_candidates = n
        # Many small leaves: at 1M x 64, 40 of 4000 beat 100 of 1000 in time and recall.
        wanted = min(config.num_leaves or max(1, min(round(4 * math.sqrt(n)), n // 16)), n)
        partition = train_partition(candidate_embeddings, wanted, config)
        self._num_leaves = len(partition.sizes)
        self._block_size = _block_size(n / self._num_leaves)
        directions = _directions(candidate_embeddings, config)
        self._row_type = tf.as_dtype(config.row_type)
        self._reorders = directions is not None or self._row_type != tf.float32
        self._store(candidate_embeddings, partition, directions)
        self.set_effort(
            Effort(
                num_leaves_to_search=config.num_leaves_to_search or _LEAVES_TO_SEARCH,
                num_reordering_candidates=config.num_reordering_candidates
                or _REORDERING_CANDIDATES,
            )
        )

    def _store(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        partition: Partition,
        directions: npt.NDArray[np.float32] | None,
    ) -> None:
        size, n = self._block_size, self.num_candidates
        blocks = -(-partition.sizes // size)
        starts = np.concatenate([[0], np.cumsum(blocks)])
        positions = _blocked_positions(partition, starts, size)
        rows = candidate_embeddings if directions is None else candidate_embeddings @ directions
        self._row_width = rows.shape[1]
        if self._row_type == tf.int8:
            rows = np.rint(rows * (127 / max(float(np.abs(rows).max()), 1e-30)))
        padded = np.zeros([len(positions), self._row_width], rows.dtype)
        padded[positions < n] = rows[positions[positions < n]]
        shape = [len(positions) // size, size * self._row_width]
        self._blocks = _frozen(tf.cast(padded.reshape(shape), self._row_type), "blocks")
        self._positions = _frozen(positions.reshape(-1, size), "positions")
        self._starts = _frozen(starts.astype(np.int32), "starts")
        self._centroids = _frozen(partition.centroids, "centroids")
        # Entry i: how many candidates the i + 1 smallest leaves hold.
        self._least = _frozen(np.cumsum(np.sort(partition.sizes)).astype(np.int32), "least")
        self._directions = None if directions is None else _frozen(directions, "directions")
        if self._reorders:
            self._embeddings = _frozen(candidate_embeddings, "embeddings")
        else:
            row_of = np.empty(n + 1, np.int32)
            row_of[positions] = np.arange(len(positions))
            self._row_of = _frozen(row_of[:n], "row_of")

    def set_effort(self, effort: Effort) -> None:
        """See `CandidateIndex.set_effort`."""
        self.effort = Effort(
            num_leaves_to_search=min(effort.num_leaves_to_search or 1, self._num_leaves),
            num_reordering_candidates=(
                effort.num_reordering_candidates if self._reorders else None
            ),
        )
        self.exact = not self._reorders and self.effort.num_leaves_to_search == self._num_leaves

    def efforts(self) -> list[Effort]:
        """See `CandidateIndex.efforts`."""
        leaves = [5, 10, 15, 20, 30, 40, 50, 60, 80, 120, 160, 240, 320, 480, 640]
        leaves = sorted({min(count, self._num_leaves) for count in leaves})
        reordered = [100, 200, 400] if self._reorders else [None]
        return [
            Effort(num_leaves_to_search=count, num_reordering_candidates=candidates)
            for count in leaves
            for candidates in reordered
        ]

    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor, effort: Effort | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `CandidateIndex.search`."""
        return self._search(query_embeddings, k, effort or self.effort, None)

    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `CandidateIndex.search_allowed`; searches the more, the fewer are allowed."""
        factor = self.num_candidates / tf.maximum(tf.math.count_nonzero(allowed), 1)
        leaves = tf.cast(tf.math.ceil(self.effort.num_leaves_to_search * factor), tf.int32)
        effort = self.effort._replace(num_leaves_to_search=leaves)
        return self._search(query_embeddings, k, effort, tf.pad(allowed, [[0, 1]]))

    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """See `CandidateIndex.embeddings`."""
        if self._reorders:
            return tf.gather(tf.convert_to_tensor(self._embeddings), positions)
        rows = tf.reshape(self._blocks, [-1, self.dimension])
        return tf.gather(rows, tf.gather(tf.convert_to_tensor(self._row_of), positions))

    def parameters(self) -> dict[str, Any]:
        """See `CandidateIndex.parameters`."""
        return {
            "num_leaves": self._num_leaves,
            **self.effort._asdict(),
            "prefilter_dimensions": None if self._directions is None else self._row_width,
            "row_type": self._row_type.name,
        }

    def _search(
        self,
        query_embeddings: tf.Tensor,
        k: int | tf.Tensor,
        effort: Effort,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        k = tf.convert_to_tensor(k, tf.int32)
        # Whichever leaves are searched, they hold k candidates.
        needed = tf.searchsorted(self._least, [k])[0] + 1
        searched = tf.minimum(tf.maximum(effort.num_leaves_to_search, needed), self._num_leaves)
        leaf_scores = tf.matmul(query_embeddings, self._centroids, transpose_b=True)
        _, leaves = tf.math.top_k(leaf_scores, k=searched, sorted=False)
        short = query_embeddings
        if self._directions is not None:
            short = tf.matmul(query_embeddings, self._directions)

        def search_one(
            inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
        ) -> tuple[tf.Tensor, tf.Tensor]:
            query, rough, own = inputs
            reordered = effort.num_reordering_candidates
            return self._search_leaves(query, rough, own, k, reordered, allowed)

        def search_single() -> tuple[tf.Tensor, tf.Tensor]:
            scores, positions = search_one((query_embeddings[0], short[0], leaves[0]))
            return scores[None], positions[None]

        def search_each() -> tuple[tf.Tensor, tf.Tensor]:
            # Query by query, for what one gathers fits into the processor's cache: at
            # 1M x 64 a batch of 64 at once took half as long again.
            return tf.map_fn(
                search_one,
                (query_embeddings, short, leaves),
                fn_output_signature=(tf.float32, tf.int32),
            )

        batch = tf.shape(query_embeddings)[0]
        return tf.switch_case(
            tf.minimum(batch, 2),
            [lambda: (tf.zeros([0, k]), tf.zeros([0, k], tf.int32)), search_single, search_each],
        )

    def _search_leaves(
        self,
        query: tf.Tensor,
        short: tf.Tensor,
        leaves: tf.Tensor,
        k: tf.Tensor,
        reordered: int | tf.Tensor | None,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The best k of some leaves for one query `[d]`; `short` is what meets the blocks."""
        # Variables are read before they are gathered from: gathering from the variable
        # itself makes TensorFlow copy the whole of it at each later read.
        starts = tf.convert_to_tensor(self._starts)
        blocks = tf.ragged.range(tf.gather(starts, leaves), tf.gather(starts, leaves + 1)).values
        rows = tf.reshape(
            tf.gather(tf.convert_to_tensor(self._blocks), blocks), [-1, self._row_width]
        )
        positions = tf.reshape(tf.gather(tf.convert_to_tensor(self._positions), blocks), [-1])
        scores = tf.linalg.matvec(tf.cast(rows, tf.float32), short)
        if allowed is None:
            kept = positions < self.num_candidates
        else:
            kept = tf.gather(allowed, positions)
            positions = tf.where(kept, positions, self.num_candidates)
        scores = tf.where(kept, scores, -math.inf)
        if reordered is None:
            return best_first(scores, positions, k)
        count = tf.minimum(tf.maximum(reordered, 2 * k), tf.size(scores))
        _, columns = tf.math.top_k(scores, k=count, sorted=False)
        positions = tf.gather(positions, columns)
        rows = self.embeddings(tf.minimum(positions, self.num_candidates - 1))
        scores = tf.linalg.matvec(rows, query)
        scores = tf.where(positions < self.num_candidates, scores, -math.inf)
        return best_first(scores, positions, k)


def _frozen(value: Any, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, name=name)


def _block_size(mean_leaf: float) -> int:
    """Rows per block: many make gathering fast, few leave little padding in each leaf."""
    return 2 ** min(5, max(0, math.floor(math.log2(max(mean_leaf / 4, 1)))))


def _blocked_positions(
    partition: Partition, starts: npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.int32]:
    """Candidate positions in the blocks' order; n where a leaf's last block is not full."""
    n = len(partition.leaf_of)
    order = np.argsort(partition.leaf_of, kind="stable")
    first = np.cumsum(partition.sizes) - partition.sizes
    within = np.arange(n) - np.repeat(first, partition.sizes)
    positions = np.full(starts[-1] * size, n, np.int32)
    positions[np.repeat(starts[:-1] * size, partition.sizes) + within] = order
    return positions


def _directions(
    candidate_embeddings: npt.NDArray[np.float32], config: IvfConfig
) -> npt.NDArray[np.float32] | None:
    """The leading directions `[d, p]` to score blocks by, or None for all of them."""
    n, d = candidate_embeddings.shape
    if config.prefilter_dimensions is None and (n < _PREFILTER_FROM or d < 32):
        return None
    if config.prefilter_dimensions is not None and config.prefilter_dimensions >= d:
        return None
    sample = candidate_embeddings[:: max(1, n // _COVARIANCE_SAMPLE)].astype(np.float64)
    # Second moments, not covariances: the mean counts in an inner product.
    energies, directions = np.linalg.eigh(sample.T @ sample)
    energies, directions = energies[::-1], directions[:, ::-1]
    count = config.prefilter_dimensions
    if count is None:
        shares = np.cumsum(energies) / np.sum(energies)
        count = 8 * math.ceil((int(np.argmax(shares >= _PREFILTER_ENERGY)) + 1) / 8)
        if count > d // 2:
            return None
    return np.ascontiguousarray(directions[:, :count].astype(np.float32))
