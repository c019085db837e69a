"""Attributes and words of the candidates, as columns to learn weights for."""

import numpy as np

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.features import attribute_columns
from shortlist.export.data.pairs import Pairs

__all__ = ["CandidateFeatures"]


class CandidateFeatures(tf.Module):
    """Sparse matrix `[num_candidates, len(names)]` with rows of unit length.

    Each value of a categorical attribute, each bucket of a numeric one and each word of a text
    is a column, so that even candidates without interactions get an informative embedding.

    Attributes:
        names: Names of the columns, such as `genres=Drama` and `year<1995`.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        rows = [np.empty(0, np.int64)]
        columns = [np.empty(0, np.int64)]
        self.names: list[str] = []
        for name, attribute in (
            *sorted(dataset.attributes.items()),
            *sorted(dataset.words.items()),
        ):
            own = attribute_columns(name, attribute)
            rows.append(own.rows)
            columns.append(own.columns + len(self.names))
            self.names += own.names
        self._num_candidates = len(dataset.candidate_ids)
        pairs = Pairs.by_row(
            np.concatenate(rows),
            np.concatenate(columns),
            num_rows=self._num_candidates,
            distinct=True,
        )
        lengths = np.sqrt(np.repeat(pairs.counts, pairs.counts))
        self._starts = tf.constant(pairs.starts, tf.int64)
        self._columns = tf.constant(pairs.columns, tf.int64)
        self._values = tf.constant((1.0 / lengths).astype(np.float32), tf.float32)

    def project(self, weights: tf.Tensor, candidates: tf.Tensor | None = None) -> tf.Tensor:
        """Return what the features add to embeddings.

        Args:
            weights: Float32 `[len(names), d]`.
            candidates: Positions int32 `[n]`; None for all, in order.

        Returns:
            Float32 `[n, d]`.
        """
        if candidates is None:
            candidates = tf.range(self._num_candidates)
        starts = tf.gather(self._starts, candidates)
        ends = tf.gather(self._starts, candidates + 1)
        entries = tf.ragged.range(starts, ends, row_splits_dtype=tf.int64)
        places = tf.stack(
            [entries.value_rowids(), tf.gather(self._columns, entries.flat_values)], axis=1
        )
        shape = tf.stack([tf.size(candidates, tf.int64), tf.shape(weights, tf.int64)[0]])
        matrix = tf.SparseTensor(places, tf.gather(self._values, entries.flat_values), shape)
        return tf.sparse.sparse_dense_matmul(matrix, weights)
