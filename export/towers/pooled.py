"""The part of a query that does not depend on the order of events, except for their age."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.change import CorpusChange
from shortlist.export.towers.events import Events
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["PooledPart"]

Vectors = npt.NDArray[np.float32]


class PooledPart(tf.Module):
    """Weighted sum of some dimensions of the events' candidates, transformed linearly.

    An event with n later ones has the weight decay^n times its own.

    Attributes:
        dimension: Length of the result.
    """

    def __init__(
        self,
        columns: slice,
        transform: Vectors,
        *,
        decay: float,
        normalized: bool = False,
        relative: bool = False,
        factors: Vectors | None = None,
    ) -> None:
        """Copy the values.

        Args:
            columns: Dimensions of the candidate embeddings that are added up, d of them.
            transform: `[d, d]`, applied to the sum; or its diagonal `[d]`.
            decay: Weight of an event relative to that of the next one, in 0..1.
            normalized: Divide the sum by the root of the sum of the squared weights.
            relative: Scale the sum so that only relations between the events' own weights count.
            factors: `[n]`, multiply the embeddings of the candidates; None for 1.
        """
        super().__init__()
        self.dimension = transform.shape[-1]
        self._columns, self._decay = columns, decay
        self._normalized, self._relative = normalized, relative
        self._transform = tf.Variable(transform, trainable=False)
        self._factors = None if factors is None else tf.Variable(factors, trainable=False)

    def structure(self) -> dict[str, Any]:
        """Return what its variables do not tell, as JSON values."""
        return {
            "kind": "pooled",
            "columns": [self._columns.start, self._columns.stop],
            "decay": float(self._decay),
            "normalized": self._normalized,
            "relative": self._relative,
        }

    @classmethod
    def restored(
        cls, stored: StoredModule, structure: Mapping[str, Any], change: CorpusChange
    ) -> Self:
        """Return the part of a version over a changed corpus; new candidates get a mean factor."""
        factors = None
        if "_factors" in stored:
            before = stored.value("_factors")
            factors = change.rows(before, np.full(change.added, before.mean()))
        return cls(
            slice(*structure["columns"]),
            stored.value("_transform"),
            decay=structure["decay"],
            normalized=structure["normalized"],
            relative=structure["relative"],
            factors=factors,
        )

    def __call__(self, embeddings: tf.Tensor, events: Events) -> tf.Tensor:
        """Return float32 `[batch, dimension]`; see `QueryPart`."""
        rows, batch = events.rows, tf.size(events.counts)
        ends = tf.gather(events.splits, rows + 1)
        later = tf.cast(ends - 1 - tf.range(tf.size(rows, tf.int64)), tf.float32)
        decays = self._decay**later
        weights = events.weights * decays
        values = embeddings[:-1, self._columns]
        factors = weights
        if self._factors is not None:
            factors *= tf.gather(tf.convert_to_tensor(self._factors), events.positions)
        sums = tf.math.unsorted_segment_sum(factors[:, None] * values, rows, batch)
        if self._normalized or self._relative:
            squares = tf.math.unsorted_segment_sum(weights**2, rows, batch)
            usual = 1.0
            if not self._normalized:
                usual = tf.math.unsorted_segment_sum(decays**2, rows, batch)
            sums *= tf.sqrt(tf.math.divide_no_nan(usual, squares))[:, None]
        transform = tf.convert_to_tensor(self._transform)
        return sums * transform if len(transform.shape) == 1 else tf.matmul(sums, transform)
