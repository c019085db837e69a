"""An inverted-file index in core TensorFlow ops, which any stock server runs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from export._tf import tf
from export.config import IvfConfig
from export.index.base import CandidateIndex, best_first, check_candidates

__all__ = ["IvfIndex"]

_LEAVES_TO_SEARCH = 40
_ASSIGN_BATCH = 65536


class IvfIndex(CandidateIndex):
    """Scores the candidates of the leaves whose centroids suit the query best.

    Candidates lie leaf by leaf in one matrix, so a leaf is a range of rows.
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
        leaves = min(config.num_leaves or max(1, min(round(4 * math.sqrt(n)), n // 16)), n)
        centroids = _train_leaves(candidate_embeddings, leaves, config)
        leaf = _nearest(candidate_embeddings, centroids)
        used, leaf = np.unique(leaf, return_inverse=True)  # drop leaves that stayed empty
        centroids, leaves = centroids[used], len(used)
        order = np.argsort(leaf, kind="stable")
        sizes = np.bincount(leaf, minlength=leaves)
        self._num_leaves = leaves
        self._num_leaves_to_search = min(config.num_leaves_to_search or _LEAVES_TO_SEARCH, leaves)
        self.exact = self._num_leaves_to_search == leaves
        self._centroids = tf.Variable(centroids, trainable=False, name="centroids")
        self._starts = tf.Variable(
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32), trainable=False, name="starts"
        )
        # Entry i: how many candidates the i + 1 smallest leaves hold.
        self._least = tf.Variable(
            np.cumsum(np.sort(sizes)).astype(np.int32), trainable=False, name="least"
        )
        self._rows = tf.Variable(candidate_embeddings[order], trainable=False, name="rows")
        self._positions = tf.Variable(order.astype(np.int32), trainable=False, name="positions")
        self._row_of = tf.Variable(
            np.argsort(order).astype(np.int32), trainable=False, name="row_of"
        )

    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `CandidateIndex.search`."""
        k = tf.convert_to_tensor(k, tf.int32)
        return self._search(query_embeddings, k, tf.constant(self._num_leaves_to_search), None)

    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `CandidateIndex.search_allowed`; searches the more, the fewer are allowed."""
        factor = self.num_candidates / tf.maximum(tf.math.count_nonzero(allowed), 1)
        leaves = tf.cast(tf.math.ceil(self._num_leaves_to_search * factor), tf.int32)
        return self._search(query_embeddings, k, tf.minimum(leaves, self._num_leaves), allowed)

    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """See `CandidateIndex.embeddings`."""
        return tf.gather(self._rows, tf.gather(self._row_of, positions))

    def _search(
        self,
        query_embeddings: tf.Tensor,
        k: tf.Tensor,
        leaves_to_search: tf.Tensor,
        allowed: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        # Whichever leaves are searched, they hold k candidates.
        needed = tf.searchsorted(self._least, [k])[0] + 1
        searched = tf.maximum(leaves_to_search, needed)
        leaf_scores = tf.matmul(query_embeddings, self._centroids, transpose_b=True)
        _, leaves = tf.math.top_k(leaf_scores, k=searched)

        def search_one(inputs: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            query, own = inputs
            rows = tf.ragged.range(tf.gather(self._starts, own), tf.gather(self._starts, own + 1))
            rows = rows.values
            scores = tf.linalg.matvec(tf.gather(self._rows, rows), query)
            positions = tf.gather(self._positions, rows)
            if allowed is not None:
                kept = tf.gather(allowed, positions)
                scores = tf.where(kept, scores, -math.inf)
                positions = tf.where(kept, positions, self.num_candidates)
            return best_first(scores, positions, k)

        return tf.cond(
            tf.shape(query_embeddings)[0] > 0,
            lambda: tf.map_fn(
                search_one, (query_embeddings, leaves), fn_output_signature=(tf.float32, tf.int32)
            ),
            lambda: (tf.zeros([0, k]), tf.zeros([0, k], tf.int32)),
        )

    def parameters(self) -> dict[str, Any]:
        """See `CandidateIndex.parameters`."""
        return {
            "num_leaves": self._num_leaves,
            "num_leaves_to_search": self._num_leaves_to_search,
        }


def _train_leaves(
    candidates: npt.NDArray[np.float32], leaves: int, config: IvfConfig
) -> npt.NDArray[np.float32]:
    """Centroids `[leaves, d]` by k-means on a sample of the candidates."""
    sample = candidates
    if len(candidates) > config.training_sample:
        chosen = np.random.default_rng(config.seed).choice(
            len(candidates), config.training_sample, replace=False
        )
        sample = candidates[np.sort(chosen)]
    distinct = np.unique(sample, axis=0) if len(sample) < 16 * leaves else sample
    leaves = min(leaves, len(distinct))
    kmeans = KMeans(
        leaves,
        n_init=1,
        init="random",
        max_iter=config.training_iterations,
        random_state=config.seed,
    )
    return kmeans.fit(distinct).cluster_centers_.astype(np.float32)


def _nearest(
    candidates: npt.NDArray[np.float32], centroids: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """The nearest centroid of each candidate."""
    half_norms = 0.5 * np.sum(centroids**2, axis=1)
    parts = [
        np.argmax(candidates[start : start + _ASSIGN_BATCH] @ centroids.T - half_norms, axis=1)
        for start in range(0, len(candidates), _ASSIGN_BATCH)
    ]
    return np.concatenate(parts)
