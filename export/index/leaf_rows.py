"""The rows of all leaves; a query scores whole leaves."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf

__all__ = ["LeafRows", "inner_products"]

_LEAVES_AT_ONCE = 4096


class LeafRows(tf.Module):
    """Scores the rows of equally large leaves.

    One gather copies a few leaves, each contiguous, and one product scores them. Variables
    are read before they are gathered from: gathering from a variable itself makes
    TensorFlow copy all of it at each later read.

    Attributes:
        num_leaves: Number of leaves.
        width: Places per leaf.
        most_copies: Most places of a leaf that can hold the same candidate's row.
        vector_length: Length of a row, w.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.float32],
        members: npt.NDArray[np.int32],
        *,
        row_type: str,
        transposed: bool,
    ) -> None:
        """Lay rows out by leaf.

        Empty places get copies of their leaf's rows, so that nothing needs a mask before
        the best are known: a copy is never better than its original, which comes first.

        Args:
            rows: `[n, w]`; their magnitude does not matter with int8.
            members: `[num_leaves, width]` positions; empty places come last and hold n.
            row_type: Data type of the stored rows.
            transposed: Whether a leaf is stored as `[w, width]`, which multiplies a third
                faster with float32, or as `[width, w]`.
        """
        super().__init__()
        n = len(rows)
        self.num_leaves, self.width = members.shape
        self.vector_length = rows.shape[1]
        sizes = np.sum(members < n, axis=1)
        self.most_copies = -(-self.width // int(np.min(sizes)))
        self._transposed = transposed
        if row_type == "int8":
            rows = np.rint(rows * (127 / max(float(np.abs(rows).max()), 1e-30)))
        copied = np.take_along_axis(members, np.arange(self.width) % sizes[:, None], axis=1)
        shape = [self.width, self.vector_length]
        laid = np.empty([self.num_leaves, *(shape[::-1] if transposed else shape)], np.float32)
        for start in range(0, self.num_leaves, _LEAVES_AT_ONCE):
            part = rows[copied[start : start + _LEAVES_AT_ONCE]]
            laid[start : start + _LEAVES_AT_ONCE] = part.transpose(0, 2, 1) if transposed else part
        self._rows = tf.Variable(tf.cast(laid, row_type), trainable=False, name="rows")
        self._members = tf.Variable(members, trainable=False, name="members")

    def scores(self, queries: tf.Tensor, leaves: tf.Tensor) -> tf.Tensor:
        """Return inner products with all rows of some leaves, copies in empty places included.

        Args:
            queries: Float32 `[batch, w]`.
            leaves: Int32 `[batch, s]`.

        Returns:
            Float32 `[batch, s * width]`.
        """
        count = leaves.shape[1] or tf.shape(leaves)[1]
        rows = tf.gather(tf.convert_to_tensor(self._rows), leaves)
        # Recent processors multiply bfloat16 natively; casting first took longer.
        compute = tf.bfloat16 if rows.dtype == tf.bfloat16 else tf.float32
        rows, queries = tf.cast(rows, compute), tf.cast(queries, compute)
        if self._transposed:
            scores = tf.matmul(queries[:, None, None, :], rows)
        else:
            rows = tf.reshape(rows, [-1, count * self.width, self.vector_length])
            scores = inner_products(queries, rows)
        return tf.cast(tf.reshape(scores, [-1, count * self.width]), tf.float32)

    def positions(self, leaves: tf.Tensor, columns: tf.Tensor | None = None) -> tf.Tensor:
        """Return int32 positions of the scored candidates; n for an empty place.

        Args:
            leaves: Int32 `[batch, s]`.
            columns: Int32 `[batch, c]` columns of the scores, or None for all.
        """
        members = tf.convert_to_tensor(self._members)
        if columns is None:
            count = leaves.shape[1] or tf.shape(leaves)[1]
            return tf.reshape(tf.gather(members, leaves), [-1, count * self.width])
        ranks = columns // self.width
        moved = tf.gather(leaves, ranks, batch_dims=1) - ranks
        return tf.gather(tf.reshape(members, [-1]), moved * self.width + columns)

    def all_rows(self) -> tf.Tensor:
        """Return all places `[num_leaves * width, w]`, if they are not transposed."""
        return tf.reshape(self._rows, [-1, self.vector_length])


def inner_products(queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return inner products `[batch, m]` of queries `[batch, w]` with their rows `[batch, m, w]`.

    If tracing knows that there is one query, this is a product of two matrices, which takes a
    third of the time of a batch with one product in it.
    """
    if queries.shape[0] == 1:
        return tf.matmul(queries, tf.reshape(rows, [-1, rows.shape[2]]), transpose_b=True)
    products = tf.matmul(tf.expand_dims(queries, 1), rows, transpose_b=True)
    return tf.reshape(products, [-1, rows.shape[1] or tf.shape(rows)[1]])
