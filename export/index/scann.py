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
        positions, scores = scann_ops.scann_search_batched(
            self._handle(),
            query_embeddings,
            k,
            tf.maximum(k, self._parameters["num_reordering_candidates"] or -1),
            self._parameters["num_leaves_to_search"] or -1,
            True,
        )
        # ScaNN fills short rows with NaN, and leaves off the columns that no row fills.
        missing = tf.math.is_nan(scores)
        scores = tf.where(missing, -math.inf, scores)
        positions = tf.where(missing, self.num_candidates, positions)
        padding = [[0, 0], [0, k - tf.shape(scores)[1]]]
        scores = tf.pad(scores, padding, constant_values=-math.inf)
        positions = tf.pad(positions, padding, constant_values=self.num_candidates)
        return best_first(scores, positions, k)

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
