"""Compressed rows inside a model or servable."""

import numpy as np

from shortlist.export._tf import tf
from shortlist.export.data.pairs import Pairs

__all__ = ["PairTable"]


class PairTable(tf.Module):
    """`Pairs` as variables: stored in the checkpoint, not in the graph, which is limited to 2 GB.

    Attributes:
        num_rows: Number of rows. Row `num_rows` is empty, for unknown ids.
    """

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.num_rows = pairs.num_rows
        starts = np.append(pairs.starts, pairs.starts[-1])
        self._starts = tf.Variable(starts, dtype=tf.int64, trainable=False)
        self._columns = tf.Variable(pairs.columns, dtype=tf.int32, trainable=False)

    def columns(self, rows: tf.Tensor) -> "tf.RaggedTensor":
        """Columns int32 `[batch, (columns)]` of rows `[batch]`."""
        entries = self.entries(rows)
        return entries.with_flat_values(self.at(entries.flat_values))

    def at(self, places: tf.Tensor) -> tf.Tensor:
        """Columns int32 `[n]` of the pairs at places `[n]` in the table."""
        return tf.gather(self._columns, places)

    def entries(self, rows: tf.Tensor) -> "tf.RaggedTensor":
        """Places int64 `[batch, (columns)]` of the pairs of rows `[batch]` in the table."""
        starts, ends = tf.gather(self._starts, rows), tf.gather(self._starts, rows + 1)
        return tf.ragged.range(starts, ends, row_splits_dtype=tf.int64)
