"""From ids to positions, inside a servable."""

from collections.abc import Sequence

import numpy as np

from shortlist.export._tf import tf

__all__ = ["IdLookup"]


class IdLookup(tf.Module):
    """Positions of distinct strings.

    A mutable table keeps its entries in the checkpoint; a static one would keep them in
    the graph, which must stay below 2 GB.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self._missing = len(ids)
        self._table = tf.lookup.experimental.MutableHashTable(
            tf.string, tf.int32, default_value=self._missing
        )
        keys = np.array(list(ids), dtype=object)
        self._table.insert(tf.constant(keys, tf.string), np.arange(len(ids), dtype=np.int32))

    def __call__(self, ids: tf.Tensor) -> tf.Tensor:
        """Int32 positions in the shape of `ids`; the number of all ids where one is missing."""
        return self._table.lookup(ids)
