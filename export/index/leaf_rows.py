"""The rows of all leaves, of which a query scores whole leaves."""

import numpy as np
import numpy.typing as npt

from export._tf import tf

__all__ = ["LeafRows"]


class LeafRows(tf.Module):
    """Scores what leaves of one size hold.

    One gather copies a few leaves, each contiguous, and one product scores them. Variables
    are read before they are gathered from: gathering from a variable itself makes
    TensorFlow copy the whole of it at each later read.

    Attributes:
        num_leaves: All of them.
        width: Places of each leaf.
        num_empty: Places without a candidate, of all leaves.
        vector_length: Of a row.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.float32],
        members: npt.NDArray[np.int32],
        *,
        row_type: str,
        transposed: bool,
    ) -> None:
        """Lays rows out.

        Args:
            rows: `[n, w]`; with int8 their magnitude does not count.
            members: `[num_leaves, width]` positions; n where a place is empty.
            row_type: How they are kept.
            transposed: Whether a leaf lies there as `[w, width]`, by a third faster to
                multiply by, or as `[width, w]`.
        """
        super().__init__()
        n = len(rows)
        self.num_leaves, self.width = members.shape
        self.vector_length = rows.shape[1]
        self.num_empty = members.size - n
        self._transposed = transposed
        if row_type == "int8":
            rows = np.rint(rows * (127 / max(float(np.abs(rows).max()), 1e-30)))
        laid = np.zeros([*members.shape, self.vector_length], np.float32)
        laid[members < n] = rows[members[members < n]]
        if transposed:
            laid = laid.transpose(0, 2, 1)
        laid = laid.reshape(self.num_leaves, -1)
        self._rows = tf.Variable(tf.cast(laid, row_type), trainable=False, name="rows")
        self._members = tf.Variable(members, trainable=False, name="members")

    def scores(self, queries: tf.Tensor, leaves: tf.Tensor) -> tf.Tensor:
        """Inner products with all rows of some leaves; 0 for an empty place.

        Args:
            queries: Float32 `[batch, w]`.
            leaves: Int32 `[batch, s]`.

        Returns:
            Float32 `[batch, s * width]`.
        """
        batch, count = tf.shape(leaves)[0], tf.shape(leaves)[1]
        rows = tf.gather(tf.convert_to_tensor(self._rows), leaves)
        # Processors of these years multiply bfloat16 as it is; casting first took longer.
        compute = tf.bfloat16 if rows.dtype == tf.bfloat16 else tf.float32
        rows, queries = tf.cast(rows, compute), tf.cast(queries, compute)
        if self._transposed:
            rows = tf.reshape(rows, [batch, count, self.vector_length, self.width])
            scores = tf.matmul(queries[:, None, None, :], rows)
        else:
            rows = tf.reshape(rows, [batch, count * self.width, self.vector_length])
            scores = tf.linalg.matvec(rows, queries)
        return tf.cast(tf.reshape(scores, [batch, count * self.width]), tf.float32)

    def positions(self, leaves: tf.Tensor, columns: tf.Tensor | None = None) -> tf.Tensor:
        """Positions int32 of what is scored; n for an empty place.

        Args:
            leaves: Int32 `[batch, s]`.
            columns: Int32 `[batch, c]` of the scores; None for all.
        """
        members = tf.convert_to_tensor(self._members)
        if columns is None:
            shape = [tf.shape(leaves)[0], tf.shape(leaves)[1] * self.width]
            return tf.reshape(tf.gather(members, leaves), shape)
        leaf = tf.gather(leaves, columns // self.width, batch_dims=1)
        return tf.gather(tf.reshape(members, [-1]), leaf * self.width + columns % self.width)

    def all_rows(self) -> tf.Tensor:
        """All places `[num_leaves * width, w]`, where they are not transposed."""
        return tf.reshape(self._rows, [-1, self.vector_length])
