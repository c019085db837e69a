"""Brute force: exact, and fast enough for small corpora."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf, tfrs
from shortlist.export.config import BruteForceConfig
from shortlist.export.index.base import CandidateIndex, Effort, check_candidates

__all__ = ["BruteForceIndex"]


class BruteForceIndex(CandidateIndex):
    """Scores every candidate with TFRS's layer; the reference for the other indexes."""

    index_name = "brute_force"
    exact = True

    def __init__(
        self,
        candidate_embeddings: npt.NDArray[np.float32],
        candidate_ids: Sequence[str],
        config: BruteForceConfig,
    ) -> None:
        super().__init__()
        check_candidates(candidate_embeddings, candidate_ids)
        self.num_candidates, self.dimension = candidate_embeddings.shape
        self.effort = Effort(num_leaves_to_search=None, num_reordering_candidates=None)
        # Without identifiers the layer returns positions.
        self._layer = tfrs.layers.factorized_top_k.BruteForce(
            # Saving a Keras layer traces it with its own k, which must not exceed the corpus.
            k=min(10, self.num_candidates)
        )
        self._layer.index(tf.constant(candidate_embeddings))
        shape = candidate_embeddings.shape
        (self._candidates,) = (w for w in self._layer.weights if w.shape == shape)

    def set_effort(self, effort: Effort) -> None:
        """Do nothing: there is no effort to choose."""

    def efforts(self) -> list[Effort]:
        """Return the only effort."""
        return [self.effort]

    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor, effort: Effort | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best candidates of each query."""
        scores, positions = self._layer(query_embeddings, k=k)
        return scores, positions

    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best allowed candidates of each query; rows are never short."""
        scores = tf.matmul(query_embeddings, self._candidates, transpose_b=True)
        scores, positions = tf.math.top_k(tf.where(allowed, scores, -math.inf), k=k)
        return scores, tf.where(tf.math.is_inf(scores), self.num_candidates, positions)

    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """Return the embeddings of some candidates."""
        # Read first: gathering from the variable itself makes every later search copy it.
        return tf.gather(tf.convert_to_tensor(self._candidates), positions)

    def parameters(self) -> dict[str, Any]:
        """Return no parameters."""
        return {}
