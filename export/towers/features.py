"""Attributes of the candidates, as columns to learn weights for."""

import numpy as np

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.pairs import Pairs

__all__ = ["CandidateFeatures"]

NUMBER_BUCKETS = 16  # a numeric attribute becomes this many columns of about equal size
_MOST_VALUES = 10_000  # per attribute; the most frequent ones


class CandidateFeatures(tf.Module):
    """Sparse matrix `[num_candidates, len(names)]` with rows of unit length.

    Each value of a categorical attribute and each bucket of a numeric one is a column, so
    that even candidates without interactions get an informative embedding.

    Attributes:
        names: Names of the columns, such as `genres=Drama` and `year<1995`.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        rows = [np.empty(0, np.int64)]
        columns = [np.empty(0, np.int64)]
        self.names: list[str] = []
        for name, attribute in sorted(dataset.attributes.items()):
            own_rows, own_columns, names = _columns(name, attribute)
            rows.append(own_rows)
            columns.append(own_columns + len(self.names))
            self.names += names
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


def _columns(name: str, attribute: Attribute) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows, columns and column names of one attribute."""
    if attribute.values is not None:
        counts: dict[str, int] = {}
        for values in attribute.values:
            for value in values:
                counts[value] = counts.get(value, 0) + 1
        frequent = sorted(sorted(counts), key=lambda value: -counts[value])[:_MOST_VALUES]
        column_of = {value: column for column, value in enumerate(frequent)}
        pairs = [
            (row, column_of[value])
            for row, values in enumerate(attribute.values)
            for value in values
            if value in column_of
        ]
        cells = np.asarray(pairs, np.int64).reshape(-1, 2)
        return cells[:, 0], cells[:, 1], [f"{name}={value}" for value in frequent]
    assert attribute.numbers is not None
    known = np.flatnonzero(np.isfinite(attribute.numbers))
    numbers = attribute.numbers[known]
    if not len(known):
        return known, known, []
    borders = np.unique(np.quantile(numbers, np.arange(1, NUMBER_BUCKETS) / NUMBER_BUCKETS))
    names = [*(f"{name}<{border:g}" for border in borders), f"{name}>={borders[-1]:g}"]
    return known, np.searchsorted(borders, numbers, side="right"), names
