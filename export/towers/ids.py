"""The two towers: from an id to an embedding."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.towers.lookup import IdLookup

__all__ = ["IdTower", "TableTower"]


class _Rows(tf.Module):
    """Rows of ids in a table that begins with the row of all unknown ids.

    Not Keras' StringLookup, which keeps the vocabulary as a constant in the graph.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self._positions, self._count = IdLookup(ids), len(ids)

    def __call__(self, ids: tf.Tensor) -> tf.Tensor:
        """Int64 rows in the shape of `ids`; 0 for those that are not known."""
        positions = self._positions(ids)
        return tf.cast(tf.where(positions < self._count, positions + 1, 0), tf.int64)


class IdTower(tf.keras.layers.Layer):
    """One learned embedding per id, and row 0 for all ids that training never saw."""

    def __init__(self, ids: Sequence[str], *, embedding_dim: int, name: str) -> None:
        super().__init__(name=name)
        self._rows = _Rows(ids)
        self.embedding = tf.keras.layers.Embedding(len(ids) + 1, embedding_dim)
        self.embedding.build(None)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Embeddings float32 `[batch, d]` of string ids `[batch]`."""
        return self.embedding(self._rows(ids))

    def embed_positions(self, positions: tf.Tensor) -> tf.Tensor:
        """Embeddings of ids given by their positions in the vocabulary, as in training."""
        return self.embedding(positions + 1)

    def positions(self, ids: tf.Tensor) -> tf.Tensor:
        """Int64 `[batch]`: each id's position in the vocabulary, -1 where it is not known."""
        return self._rows(ids) - 1

    def set_unknown(self, embedding: npt.NDArray[np.float32]) -> None:
        """Gives unknown ids an embedding `[d]`; training never touches theirs."""
        self.embedding.embeddings[0].assign(embedding)


class TableTower(tf.keras.layers.Layer):
    """One embedding per id, computed beforehand, and one for all unknown ids."""

    def __init__(
        self,
        ids: Sequence[str],
        embeddings: npt.NDArray[np.float32],
        unknown: npt.NDArray[np.float32],
        *,
        known: npt.NDArray[np.bool_],
        name: str,
    ) -> None:
        """Keeps a copy of the embeddings.

        Args:
            ids: `[n]`, distinct.
            embeddings: `[n, d]`.
            unknown: `[d]`.
            known: `[n]`, False for ids that training never saw: those are unknown, too.
            name: Of the layer.
        """
        super().__init__(name=name)
        self._rows = _Rows(ids)
        rows = np.where(known[:, None], embeddings, unknown[None])
        self._embeddings = tf.Variable(np.concatenate([unknown[None], rows]), trainable=False)
        self._known = tf.Variable(np.concatenate([[False], known]), trainable=False)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Embeddings float32 `[batch, d]` of string ids `[batch]`."""
        return tf.gather(self._embeddings, self._rows(ids))

    def positions(self, ids: tf.Tensor) -> tf.Tensor:
        """Int64 `[batch]`: each id's position in the vocabulary, -1 where it is not known."""
        rows = self._rows(ids)
        return tf.where(tf.gather(self._known, rows), rows - 1, tf.constant(-1, tf.int64))
