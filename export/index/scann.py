"""ScaNN, through its TensorFlow ops."""

import math
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export._tf import scann_ops, tf
from export.config import ScannConfig
from export.index.base import CandidateIndex, best_first, check_candidates

__all__ = ["ScannIndex"]

# ScaNN's own rules of thumb, from its docs/algorithms.md: brute force below 20,000
# candidates, hashing and reordering below 100,000, partitions from there on.
_HASH_FROM = 20_000
_TREE_FROM = 100_000
_TIE_MARGIN = 8


class ScannIndex(CandidateIndex):
    """Partitions, asymmetric hashing and reordering, as far as the corpus needs them.

    Built by ScaNN's builder, as TFRS's layer does, but that layer always partitions and
    hashes, which on a small corpus is slower than brute force and loses recall.
    """

    index_name = "scann"

    def __init__(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        candidate_ids: Sequence[str],
        config: ScannConfig,
    ) -> None:
        super().__init__()
        check_candidates(candidate_embeddings, candidate_ids)
        self.num_candidates, self.dimension = candidate_embeddings.shape
        self._parameters = _choose(self.num_candidates, config)
        self.exact = (
            self._parameters["scoring"] == "brute_force"
            and self._parameters["num_leaves"] == self._parameters["num_leaves_to_search"]
        )
        self._num_leaves = self._parameters["num_leaves"] or 1
        # The resource's name must be one per index: left to TensorFlow, each signature
        # would build a searcher of its own, and two versions might share one.
        self._shared_name = f"scann-{uuid.uuid4()}"
        searcher = _build(candidate_embeddings, self._parameters, f"build-{self._shared_name}")
        self._state = searcher.serialize_to_module()
        tf.raw_ops.DestroyResourceOp(resource=searcher.searcher_handle, ignore_lookup_error=True)

    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `CandidateIndex.search`."""
        k = tf.convert_to_tensor(k, tf.int32)
        n = self.num_candidates

        def fetch(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            scores, positions = self._search(query_embeddings, count, tf.constant(1.0))
            return count, *best_first(scores, positions, count)

        def cut_in_a_tie(count: tf.Tensor, scores: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
            """Whether a candidate that was left off may equal the k-th answer."""
            tied = tf.logical_and(scores[:, k - 1] == scores[:, -1], positions[:, -1] < n)
            return tf.logical_and(count < n, tf.reduce_any(tied))

        # Of equal scores ScaNN keeps any; a few answers more mostly show the whole tie.
        results = tf.while_loop(
            cut_in_a_tie,
            lambda count, scores, positions: fetch(tf.minimum(4 * count, n)),
            fetch(tf.minimum(k + _TIE_MARGIN, n)),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, None]),
                tf.TensorShape([None, None]),
            ),
        )
        return results[1][:, :k], results[2][:, :k]

    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `CandidateIndex.search_allowed`; searches the more, the fewer are allowed."""
        n = self.num_candidates
        factor = tf.cast(n / tf.maximum(tf.math.count_nonzero(allowed), 1), tf.float32)
        fetch = tf.cast(tf.math.ceil(tf.cast(k, tf.float32) * factor * 1.25), tf.int32) + 16
        fetch = tf.maximum(tf.minimum(fetch, n), k)
        scores, positions = self._search(query_embeddings, fetch, factor)
        kept = tf.gather(tf.pad(allowed, [[0, 1]]), positions)
        scores = tf.where(kept, scores, -math.inf)
        return best_first(scores, tf.where(kept, positions, n), k)

    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """See `CandidateIndex.embeddings`; ScaNN keeps them for reordering."""
        return tf.ensure_shape(tf.gather(self._state.dataset, positions), [None, self.dimension])

    def _search(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, factor: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Answers in ScaNN's order, padded to k; `factor` times the usual effort."""
        leaves = self._parameters["num_leaves_to_search"]
        reordered = self._parameters["num_reordering_candidates"]
        positions, scores = scann_ops.scann_search_batched(
            self._handle(),
            query_embeddings,
            k,
            -1 if reordered is None else tf.maximum(k, _times(reordered, factor)),
            -1 if leaves is None else tf.minimum(_times(leaves, factor), self._num_leaves),
            True,
        )
        # ScaNN fills short rows with NaN, and leaves off the columns that no row fills.
        missing = tf.math.is_nan(scores)
        scores = tf.where(missing, -math.inf, scores)
        positions = tf.where(missing, self.num_candidates, positions)
        padding = [[0, 0], [0, k - tf.shape(scores)[1]]]
        scores = tf.pad(scores, padding, constant_values=-math.inf)
        positions = tf.pad(positions, padding, constant_values=self.num_candidates)
        return scores, positions

    def parameters(self) -> dict[str, Any]:
        """See `CandidateIndex.parameters`."""
        return dict(self._parameters)

    def _handle(self) -> tf.Tensor:
        state = self._state
        return scann_ops.tensors_to_scann(
            state.dataset,
            state.scann_config,
            state.serialized_partitioner,
            state.datapoint_to_token,
            state.ah_codebook,
            state.hashed_dataset,
            state.int8_dataset,
            state.int8_multipliers,
            state.dp_norms,
            shared_name=self._shared_name,
        )


def _times(count: int, factor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.math.ceil(tf.cast(count, tf.float32) * factor), tf.int32)


def _choose(num_candidates: int, config: ScannConfig) -> dict[str, Any]:
    """Parameters for a corpus, those of the configuration first."""
    tree = config.num_leaves is not None or num_candidates >= _TREE_FROM
    hashing = config.num_reordering_candidates is not None or num_candidates >= _HASH_FROM
    leaves = searched = None
    if tree:
        leaves = min(config.num_leaves or round(math.sqrt(num_candidates)), num_candidates)
        searched = min(config.num_leaves_to_search or max(1, round(leaves / 10)), leaves)
    return {
        "scoring": "asymmetric_hashing" if hashing else "brute_force",
        "num_leaves": leaves,
        "num_leaves_to_search": searched,
        "num_reordering_candidates": (
            (config.num_reordering_candidates or 300) if hashing else None
        ),
    }


def _build(
    candidate_embeddings: npt.NDArray[np.float32], parameters: dict[str, Any], shared_name: str
) -> Any:
    builder = scann_ops.builder(tf.constant(candidate_embeddings), 100, "dot_product")
    if parameters["num_leaves"] is not None:
        builder = builder.tree(
            num_leaves=parameters["num_leaves"],
            num_leaves_to_search=parameters["num_leaves_to_search"],
            training_sample_size=min(len(candidate_embeddings), 250_000),
            min_partition_size=1,
        )
    if parameters["scoring"] == "brute_force":
        builder = builder.score_brute_force()
    else:
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        builder = builder.reorder(parameters["num_reordering_candidates"])
    return builder.build(shared_name=shared_name)
