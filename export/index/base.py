"""What every index is: candidates in, best positions out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf

__all__ = ["CandidateIndex", "Effort", "best_first", "check_candidates"]

_INT32_MAX = 2**31 - 1


class Effort(NamedTuple):
    """How hard an approximate index tries; None where an index has no such parameter.

    Attributes:
        num_leaves_to_search: Per query.
        num_reordering_candidates: Of the best by rough scores, so many are scored exactly.
    """

    num_leaves_to_search: int | None
    num_reordering_candidates: int | None


class CandidateIndex(tf.Module, ABC):
    """Finds the candidates with the largest inner products.

    Nothing outside an index knows which kind it is, but for `exact`.

    Attributes:
        index_name: Kind of index, one of `shortlist.clients.contract.INDEXES`.
        custom_ops: Ops it uses that TensorFlow itself does not have.
        exact: Whether the answers are those of brute force.
        effort: What `search` spends unless told otherwise.
        num_candidates: n.
        dimension: d.
    """

    index_name: ClassVar[str]
    custom_ops: ClassVar[tuple[str, ...]] = ()
    exact: bool
    effort: Effort
    num_candidates: int
    dimension: int

    @abstractmethod
    def search(
        self, query_embeddings: tf.Tensor, k: int | tf.Tensor, effort: Effort | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The best candidates of each query.

        Args:
            query_embeddings: Float32 `[batch, d]`; batch may be 0.
            k: Answers per query, in 1..n; an integer or an int32 scalar.
            effort: Instead of the index's own; may hold int32 scalars.

        Returns:
            Scores float32 `[batch, k]`, best first, and their positions int32
            `[batch, k]` in the order the candidates were given in. Equal scores go by
            position. Where fewer than k were found, the row ends in score -inf and
            position n.
        """

    @abstractmethod
    def set_effort(self, effort: Effort) -> None:
        """Changes what `search` spends, before it is traced; more than all becomes all."""

    @abstractmethod
    def efforts(self) -> list[Effort]:
        """Efforts worth trying, from little to much; one where there is nothing to choose."""

    @abstractmethod
    def search_allowed(
        self, query_embeddings: tf.Tensor, k: tf.Tensor, allowed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As `search`, among the candidates that bool `[n]` `allowed` names.

        A row may be short though more than k are allowed; whoever needs them all
        asks for `embeddings` and scores them.
        """

    @abstractmethod
    def embeddings(self, positions: tf.Tensor) -> tf.Tensor:
        """Float32 `[m, d]` embeddings of the candidates at int32 positions `[m]`."""

    def release(self) -> None:
        """Frees what outlives the object, once nothing searches with it any more."""
        return

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The parameters in effect, for the manifest; values that JSON knows."""


def check_candidates(
    candidate_embeddings: npt.NDArray[np.float32], candidate_ids: Sequence[str]
) -> None:
    """Makes sure that an index can be built.

    Raises:
        ValueError: Wrong shape or type, not finite, or ids that do not fit or repeat.
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
    # One pass without a mask as large as the matrix: any NaN or infinity makes the sum so.
    if not np.isfinite(np.sum(candidate_embeddings, dtype=np.float64)):
        raise ValueError("candidate_embeddings must be finite; lower the learning rate")


def best_first(
    scores: tf.Tensor, positions: tf.Tensor, k: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The k best of each row, equal scores by ascending position.

    `tf.math.top_k` breaks ties by column, and in an inverted file columns are not in the
    order of the catalogue. So both go into one integer: the float's bits, made to
    sort as integers do, above the position. That is about as fast as sorting floats.

    Args:
        scores: Float32 `[..., m]`, no NaN.
        positions: Int32 `[..., m]`, not negative.
        k: At most m.

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
