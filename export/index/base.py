"""The interface of every index: candidates in, best positions out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf

__all__ = ["CandidateIndex", "Effort", "best_first", "check_candidates"]

_INT32_MAX = 2**31 - 1


class Effort(NamedTuple):
    """Search effort of an approximate index; None for a parameter that it does not have.

    Attributes:
        num_leaves_to_search: Leaves per query.
        num_reordering_candidates: Best candidates by rough scores, which are scored exactly.
    """

    num_leaves_to_search: int | None
    num_reordering_candidates: int | None


class CandidateIndex(tf.Module, ABC):
    """Finds the candidates with the largest inner products.

    Callers need not know the kind of index, except for `exact`.

    Attributes:
        index_name: Kind of index, one of `shortlist.clients.contract.INDEXES`.
        exact: Whether answers equal those of brute force.
        effort: Default effort of `search`.
        num_candidates: Size of the corpus, n.
        dimension: Length of an embedding, d.
    """

    index_name: ClassVar[str]
    exact: bool
    effort: Effort
    num_candidates: int
    dimension: int

    @abstractmethod
    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor, effort: Effort | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best candidates of each query.

        Args:
            query_embeddings: Float32 `[batch, d]`; batch may be 0.
            k: Answers per query, in 1..n; an integer or an int32 scalar.
            effort: Effort instead of the index's own; may hold int32 scalars.

        Returns:
            Scores float32 `[batch, k]`, best first, and int32 `[batch, k]` positions in the
            candidates that the index was built from. Equal scores are ordered by position.
            A row with fewer than k results ends in score -inf and position n.
        """

    @abstractmethod
    def set_effort(self, effort: Effort) -> None:
        """Change the effort of `search` before it is traced; more than all leaves become all."""

    @abstractmethod
    def efforts(self) -> list[Effort]:
        """Return the efforts worth trying, lowest first; one if there is nothing to choose."""

    @abstractmethod
    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best of the candidates that bool `[n]` `allowed` marks, as `search` does.

        A row may be short although more than k are allowed; callers that need all of them
        score `embeddings` themselves.
        """

    @abstractmethod
    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """Return float32 `[m, d]` embeddings of the candidates at int32 positions `[m]`."""

    def release(self) -> None:
        """Free resources that outlive the object; it must not be searched afterwards."""
        return

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return the parameters in effect as JSON values, for the manifest."""


def check_candidates(
    candidate_embeddings: npt.NDArray[np.float32], candidate_ids: Sequence[str]
) -> None:
    """Check that an index can be built.

    Raises:
        ValueError: Embeddings have the wrong shape or type or are not finite, or ids are
            repeated, empty, or too many or few.
    """
    if candidate_embeddings.ndim != 2 or candidate_embeddings.dtype != np.float32:
        raise ValueError(
            "candidate_embeddings must be float32 [n, d], got "
            f"{candidate_embeddings.dtype} {list(candidate_embeddings.shape)}"
        )
    if len(candidate_embeddings) == 0:
        raise ValueError("an index needs at least one candidate, got none")
    if len(candidate_ids) != len(candidate_embeddings):
        raise ValueError(
            "candidate_ids and candidate_embeddings must have the same length, got "
            f"{len(candidate_ids)} and {len(candidate_embeddings)}"
        )
    if len(set(candidate_ids)) != len(candidate_ids):
        raise ValueError("candidate_ids must be distinct; an answer would repeat them")
    if "" in candidate_ids:
        raise ValueError('a candidate id must not be "": it marks the end of a short answer')
    # One pass without a mask as large as the matrix: a NaN or infinity shows in the sum.
    if not np.isfinite(np.sum(candidate_embeddings, dtype=np.float64)):
        raise ValueError("candidate_embeddings must be finite; lower the learning rate")


def best_first(
    scores: tf.Tensor, positions: tf.Tensor, k: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the k best of each row, equal scores by ascending position.

    `tf.math.top_k` breaks ties by column, but the columns of an inverted file are not in the
    order of the catalogue. So score and position are packed into one integer, with the
    float's bits (mapped so that they sort like integers) above the position. That is about
    as fast as sorting floats.

    Args:
        scores: Float32 `[..., m]`, no NaN.
        positions: Int32 `[..., m]`, not negative.
        k: Results per row, at most m.

    Returns:
        Scores and positions `[..., k]`.
    """
    bits = tf.bitcast(tf.where(scores == 0.0, 0.0, scores), tf.int32)  # -0.0 equals 0.0
    bits = tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, _INT32_MAX), bits)
    shift = tf.constant(32, tf.int64)
    keys = tf.bitwise.left_shift(tf.cast(bits, tf.int64), shift) + (
        _INT32_MAX - tf.cast(positions, tf.int64)
    )
    keys, _ = tf.math.top_k(keys, k=k)
    high = tf.bitwise.right_shift(keys, shift)
    bits = tf.cast(high, tf.int32)
    bits = tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, _INT32_MAX), bits)
    low = keys - tf.bitwise.left_shift(high, shift)
    return tf.bitcast(bits, tf.float32), tf.cast(_INT32_MAX - low, tf.int32)
