"""What a servable answers: the same signatures, whichever index it holds."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from clients import contract
from export._tf import tf
from export.index.base import CandidateIndex

__all__ = ["QueryTower", "RetrievalServable"]


class QueryTower(Protocol):
    """What a servable needs of a query tower; must be trackable by TensorFlow."""

    def __call__(self, user_ids: tf.Tensor) -> tf.Tensor:
        """Float32 `[batch, d]` of string `[batch]`."""

    def is_known(self, user_ids: tf.Tensor) -> tf.Tensor:
        """Bool `[batch]` of string `[batch]`."""


class RetrievalServable(tf.Module):
    """One version of one model, ready to be saved."""

    def __init__(
        self,
        *,
        query_tower: QueryTower,
        index: CandidateIndex,
        candidate_ids: Sequence[str],
        version: int,
        top_k: int,
    ) -> None:
        super().__init__()
        self._query_tower = query_tower
        self._index = index
        self._version = version
        self.num_candidates = index.num_candidates
        self.top_k = min(top_k, self.num_candidates)
        # One more than there are candidates: padding's position answers padding's id.
        ids = np.array([*candidate_ids, contract.PADDING_CANDIDATE_ID], dtype=object)
        self._candidate_ids = tf.Variable(ids, dtype=tf.string, trainable=False, name="ids")

    def signatures(self) -> dict[str, Any]:
        """Concrete functions by signature name."""
        strings = tf.TensorSpec([None], tf.string, name=contract.USER_ID)
        embeddings = tf.TensorSpec(
            [None, self._index.dimension], tf.float32, name=contract.QUERY_EMBEDDING
        )
        return {
            contract.SERVING_DEFAULT: _concrete(self._serving_default, strings),
            contract.RETRIEVE_BY_EMBEDDING: _concrete(self._retrieve_by_embedding, embeddings),
            contract.EMBED: _concrete(self._embed, strings),
        }

    def _serving_default(self, user_id: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = self._retrieve_by_embedding(self._query_tower(user_id))
        return {**answers, contract.KNOWN_USER: self._query_tower.is_known(user_id)}

    def _retrieve_by_embedding(self, query_embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, positions = self._index.search(query_embedding, self.top_k)
        return self._answers(scores, positions, self.top_k)

    def _embed(self, user_id: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            contract.QUERY_EMBEDDING: self._query_tower(user_id),
            contract.KNOWN_USER: self._query_tower.is_known(user_id),
            contract.SERVABLE_VERSION: self._versions(user_id),
        }

    def _answers(
        self, scores: tf.Tensor, positions: tf.Tensor, width: int | None
    ) -> dict[str, tf.Tensor]:
        ids = tf.gather(self._candidate_ids, positions)
        return {
            contract.CANDIDATE_IDS: tf.ensure_shape(ids, [None, width]),
            contract.SCORES: tf.ensure_shape(scores, [None, width]),
            contract.SERVABLE_VERSION: self._versions(scores),
        }

    def _versions(self, like: tf.Tensor) -> tf.Tensor:
        """The version once per row, for REST's answers do not name it."""
        return tf.fill(tf.shape(like)[:1], tf.constant(self._version, tf.int64))


def _concrete(function: Callable[..., dict[str, tf.Tensor]], *specs: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=specs).get_concrete_function()
