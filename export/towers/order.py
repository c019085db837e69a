"""Query tower over the order of events: one block of causal attention."""

import math
from collections.abc import Callable

from shortlist.export._tf import tf
from shortlist.export.data.histories import LONGEST_GAP
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["OrderTower", "Uniform"]

# Uniform random numbers in [0, 1) of a shape, float32.
Uniform = Callable[[tf.Tensor], tf.Tensor]

_HEADS = 2
_MASKED = -1e9


class OrderTower(tf.Module):
    """Turns the last events of a user, oldest first, into a query.

    The inputs are the candidates' own embeddings, so the tower stores no table of candidates.
    Learned vectors for the place of an event and the time since the previous one are added to
    them. A block of attention and feed-forward layers follows, both normalized at their input.

    Attributes:
        dimension: Length of a query, and of a candidate embedding.
        length: Largest number of events.
    """

    def __init__(self, dimension: int, length: int, random: "tf.random.Generator") -> None:
        """Draw the initial values.

        Args:
            dimension: Length of a candidate embedding.
            length: Largest number of events.
            random: Generator of the initial values.
        """
        super().__init__(name="order")
        self.dimension = dimension
        self.length = length
        self._heads = _HEADS if dimension % _HEADS == 0 else 1
        self._scale = 1 / math.sqrt(dimension // self._heads)

        def matrix(name: str, rows: int, columns: int, share: float = 1.0) -> tf.Variable:
            values = random.normal([rows, columns], stddev=share / math.sqrt(rows))
            return tf.Variable(values, name=name)

        def zeros(name: str, *shape: int) -> tf.Variable:
            return tf.Variable(tf.zeros(shape), name=name)

        d = dimension
        self._places = zeros("places", length, d)
        self._gaps = zeros("gaps", LONGEST_GAP + 1, d)
        self._distances = zeros("distances", length, self._heads)
        self._queries, self._keys = matrix("queries", d, d), matrix("keys", d, d)
        self._values = matrix("values", d, d)
        self._mixed = matrix("mixed", d, d, 0.5)
        self._inner, self._inner_bias = matrix("inner", d, 2 * d), zeros("inner_bias", 2 * d)
        self._outer, self._outer_bias = matrix("outer", 2 * d, d, 0.5), zeros("outer_bias", d)
        self._norms = [
            (tf.Variable(tf.ones(d), name=f"{name}_scale"), zeros(f"{name}_shift", d))
            for name in ("attention", "feed_forward", "query")
        ]

    def assign(self, stored: StoredModule) -> None:
        """Take the values of a tower of the same shape in a version."""
        for name, own in vars(self).items():
            if isinstance(own, tf.Variable):
                own.assign(stored.value(name))
        for number, (scale, shift) in enumerate(self._norms):
            scale.assign(stored.value(f"_norms/{number}/0"))
            shift.assign(stored.value(f"_norms/{number}/1"))

    def encode(
        self,
        inputs: tf.Tensor,
        gaps: tf.Tensor,
        *,
        dropout: float = 0.0,
        random: Uniform | None = None,
    ) -> tf.Tensor:
        """Return the query after each event, float32 `[batch, l, d]`.

        Args:
            inputs: Float32 `[batch, l, d]`, embeddings of the candidates, padded on the right;
                `l` is at most `length`.
            gaps: Int32 `[batch, l]`, buckets of the times between events (see
                `Histories.gaps`); that of the first event is ignored.
            dropout: Share of the values to drop, for training.
            random: Source of random numbers, if `dropout` is above 0.
        """

        def drop(x: tf.Tensor) -> tf.Tensor:
            if not dropout or random is None:
                return x
            return tf.where(random(tf.shape(x)) < dropout, 0.0, x / (1 - dropout))

        batch, length = tf.unstack(tf.shape(gaps))
        place = tf.range(length)
        back = place[:, None] - place
        x = drop(self._embed(inputs, gaps))
        y = tf.reshape(self._norm(0, x), [-1, self.dimension])
        shape = [batch, length, self._heads, self.dimension // self._heads]
        queries, keys, values = (
            tf.transpose(tf.reshape(tf.matmul(y, weights), shape), [0, 2, 1, 3])
            for weights in (self._queries, self._keys, self._values)
        )
        scores = tf.matmul(queries, keys, transpose_b=True) * self._scale
        bias = tf.transpose(tf.gather(self._distances, tf.maximum(back, 0)), [2, 0, 1])
        scores += bias + tf.where(back >= 0, 0.0, _MASKED)
        mixed = tf.matmul(drop(tf.nn.softmax(scores)), values)
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, self.dimension])
        x += drop(tf.reshape(tf.matmul(mixed, self._mixed), tf.shape(x)))
        y = tf.reshape(self._norm(1, x), [-1, self.dimension])
        x += drop(tf.reshape(self._feed_forward(y), tf.shape(x)))
        return self._norm(2, x)

    def last(self, inputs: tf.Tensor, gaps: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Return the query after the last event, float32 `[batch, d]`; zeros without events.

        Equal to a row of `encode`, for a fraction of the work: with one query per user, keys and
        values are projected on the side of the query, once per user and not once per event.

        Args:
            inputs: As in `encode`.
            gaps: As in `encode`.
            counts: Int32 `[batch]`, number of events of each row.
        """
        batch, length = tf.unstack(tf.shape(gaps))
        missing = tf.maximum(1 - length, 0)  # a batch without any event has a width of 0
        gaps = tf.pad(gaps, [[0, 0], [0, missing]])
        inputs = tf.pad(inputs, [[0, 0], [0, missing], [0, 0]])
        x = self._embed(inputs, gaps)
        y = self._norm(0, x)
        last = tf.maximum(counts - 1, 0)
        back = last[:, None] - tf.range(tf.shape(gaps)[1])
        x = tf.gather(x, last, batch_dims=1)
        by_head = [self.dimension, self._heads, self.dimension // self._heads]
        query = tf.matmul(tf.gather(y, last, batch_dims=1), self._queries)
        query = tf.reshape(query, [batch, *by_head[1:]])
        query = tf.einsum("bhe,dhe->bhd", query, tf.reshape(self._keys, by_head))
        scores = tf.matmul(query, y, transpose_b=True) * self._scale
        scores += tf.transpose(tf.gather(self._distances, tf.maximum(back, 0)), [0, 2, 1])
        weights = tf.nn.softmax(scores + tf.where(back >= 0, 0.0, _MASKED)[:, None])
        mixed = tf.einsum("bhd,dhe->bhe", tf.matmul(weights, y), tf.reshape(self._values, by_head))
        x += tf.matmul(tf.reshape(mixed, [batch, self.dimension]), self._mixed)
        query = self._norm(2, x + self._feed_forward(self._norm(1, x)))
        return tf.where(counts[:, None] > 0, query, 0.0)

    def _embed(self, inputs: tf.Tensor, gaps: tf.Tensor) -> tf.Tensor:
        """Inputs of the block, float32 `[batch, l, d]`."""
        place = tf.range(tf.shape(gaps)[1])
        gaps = tf.where(place > 0, gaps, 0)
        x = inputs * math.sqrt(self.dimension) + tf.gather(self._places, place)
        return x + tf.gather(self._gaps, gaps)

    def _norm(self, number: int, x: tf.Tensor) -> tf.Tensor:
        scale, shift = self._norms[number]
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + 1e-6) * scale + shift

    def _feed_forward(self, x: tf.Tensor) -> tf.Tensor:
        """Feed-forward layers on float32 `[n, d]`."""
        inner = tf.nn.gelu(tf.matmul(x, self._inner) + self._inner_bias, approximate=True)
        return tf.matmul(inner, self._outer) + self._outer_bias
