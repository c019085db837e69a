"""The part of a query that depends on the order of the last events."""

from collections.abc import Mapping
from typing import Any, Self

from shortlist.export._tf import tf
from shortlist.export.towers.events import Events
from shortlist.export.towers.order import OrderTower
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["OrderPart"]


class OrderPart(tf.Module):
    """The query of an `OrderTower` after the last events of each history.

    Attributes:
        dimension: Length of the result.
    """

    def __init__(self, tower: OrderTower, columns: slice, *, scale: float, factor: float) -> None:
        """Use a trained tower.

        Args:
            tower: Trained tower.
            columns: Dimensions of the embeddings that hold the tower's candidates times `scale`.
            scale: Factor of the candidates.
            factor: Factor of the scores.
        """
        super().__init__()
        self.dimension = tower.dimension
        self._tower, self._columns = tower, columns
        self._scale, self._factor = scale, factor

    def structure(self) -> dict[str, Any]:
        """Return what its variables do not tell, as JSON values."""
        return {
            "kind": "order",
            "columns": [self._columns.start, self._columns.stop],
            "length": self._tower.length,
            "scale": float(self._scale),
            "factor": float(self._factor),
        }

    @classmethod
    def restored(cls, stored: StoredModule, structure: Mapping[str, Any]) -> Self:
        """Return the part of a version, which does not depend on the corpus."""
        columns = slice(*structure["columns"])
        random = tf.random.Generator.from_seed(0)
        tower = OrderTower(columns.stop - columns.start, structure["length"], random)
        tower.assign(stored.under("_tower"))
        return cls(tower, columns, scale=structure["scale"], factor=structure["factor"])

    def __call__(self, embeddings: tf.Tensor, events: Events) -> tf.Tensor:
        """Return float32 `[batch, dimension]`; see `QueryPart`."""
        counts = tf.minimum(events.counts, self._tower.length)
        width = tf.maximum(tf.reduce_max(tf.concat([[0], counts], axis=0)), 1)
        places = (events.splits[1:] - counts)[:, None] + tf.range(width)
        # The last embedding belongs to no event, and neither does the last gap.
        inside = tf.range(width) < counts[:, None]
        nothing = tf.size(events.positions, tf.int64)
        places = tf.where(inside, places, nothing)
        inputs = tf.gather(embeddings[:, self._columns], places) * (1.0 / self._scale)
        gaps = tf.gather(tf.concat([events.gaps, [0]], axis=0), places)
        queries = self._tower.last(inputs, gaps, tf.cast(counts, tf.int32))
        return queries * (self._factor / self._scale)
