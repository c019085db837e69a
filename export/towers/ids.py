"""From ids to positions and embeddings, inside a servable."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf

__all__ = ["IdLookup", "IdTower"]


class IdLookup(tf.Module):
    """Positions of distinct strings.

    A mutable table stores its entries in the checkpoint. A static table and Keras'
    StringLookup store them in the graph, which must stay below 2 GB.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self._table = tf.lookup.experimental.MutableHashTable(
            tf.string, tf.int32, default_value=len(ids)
        )
        keys = np.array(list(ids), dtype=object)
        self._table.insert(tf.constant(keys, tf.string), np.arange(len(ids), dtype=np.int32))

    def __call__(self, ids: tf.Tensor) -> tf.Tensor:
        """Int32 positions in the shape of `ids`; the number of ids for an unknown one."""
        return self._table.lookup(ids)


class _Rows(tf.Module):
    """Rows of ids in a table whose first row stands for all unknown ids."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self._positions, self._count = IdLookup(ids), len(ids)

    def __call__(self, ids: tf.Tensor) -> tf.Tensor:
        """Int64 rows in the shape of `ids`; 0 for unknown ids."""
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
        """Embeddings of ids by their positions in the vocabulary, as in training."""
        return self.embedding(positions + 1)

    def positions(self, ids: tf.Tensor) -> tf.Tensor:
        """Position of each id in the vocabulary, int64 `[batch]`; -1 for unknown ids."""
        return self._rows(ids) - 1

    def set_unknown(self, embedding: npt.NDArray[np.float32]) -> None:
        """Set the embedding `[d]` of unknown ids, which training leaves unchanged."""
        self.embedding.embeddings[0].assign(embedding)
