"""Similarities of a query and a candidate, as the inner products that every index computes."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import SimilarityName

__all__ = ["DotProduct", "Similarity", "fit_similarity"]

Vectors = npt.NDArray[np.float32]


class Similarity(tf.Module, ABC):
    """Turns queries into those of an index, and its inner products into scores.

    Attributes:
        dimension: Length of a query and a candidate embedding, d.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension

    @abstractmethod
    def query(self, queries: tf.Tensor) -> tf.Tensor:
        """Return the queries of the index, float32 `[batch, r]`, for queries `[batch, d]`."""

    @abstractmethod
    def score(self, products: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Return scores `[batch, k]` for the index's inner products; -inf stays -inf."""

    @abstractmethod
    def vectors(self, rows: tf.Tensor) -> tf.Tensor:
        """Return candidate embeddings `[m, d]`, which are queries as well, for index rows."""


class DotProduct(Similarity):
    """Inner product: the index's own."""

    def query(self, queries: tf.Tensor) -> tf.Tensor:
        """Return the queries as they are."""
        return queries

    def score(self, products: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Return the inner products as they are."""
        return products

    def vectors(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the rows as they are."""
        return rows


class _Cosine(DotProduct):
    """Cosine: the index holds candidates of length 1; a query of zeros scores 0."""

    def query(self, queries: tf.Tensor) -> tf.Tensor:
        """Return queries of length 1."""
        return tf.math.l2_normalize(queries, axis=1)


class _SquaredDistance(Similarity):
    """Negative squared Euclidean distance.

    -|q - c|² = 2 q·c - |c|² - |q|², so a row of the index is a candidate with -|c|²; |q|², which
    changes no order, is subtracted after the search. Vectors are measured from the candidates'
    mean, which keeps the squares small and thus exact. The added column is scaled to vary as
    much as the others, so that it does not dominate the leaves of an index.
    """

    def __init__(self, mean: Vectors, scale: float) -> None:
        super().__init__(len(mean))
        self._mean = tf.Variable(mean, trainable=False)
        self._scale = scale

    def query(self, queries: tf.Tensor) -> tf.Tensor:
        """Return `[2q, scale]`."""
        return tf.pad(2.0 * (queries - self._mean), [[0, 0], [0, 1]], constant_values=self._scale)

    def score(self, products: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Return negative squared distances."""
        return products - tf.reduce_sum(tf.square(queries - self._mean), axis=1, keepdims=True)

    def vectors(self, rows: tf.Tensor) -> tf.Tensor:
        """Return the rows without the added column."""
        return rows[:, :-1] + self._mean


def fit_similarity(name: SimilarityName, candidates: Vectors) -> tuple[Similarity, Vectors]:
    """Return a similarity and the rows `[n, r]` to index for candidates `[n, d]`.

    With `cosine`, no candidate may have length 0.
    """
    if name == "dot":
        return DotProduct(candidates.shape[1]), candidates
    if name == "cosine":
        lengths = np.linalg.norm(candidates, axis=1, keepdims=True)
        return _Cosine(candidates.shape[1]), candidates / lengths
    mean = candidates.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = candidates - mean
    squares = np.einsum("ij,ij->i", centred, centred)
    spread, usual = float(np.std(squares)), float(np.sqrt(np.mean(np.square(centred))))
    scale = spread / usual if spread > 0 and usual > 0 else 1.0
    rows = np.concatenate([centred, -squares[:, None] / np.float32(scale)], axis=1)
    return _SquaredDistance(mean, scale), rows
