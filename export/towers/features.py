"""What is known of the candidates beside their ids, as columns to learn weights for."""

import numpy as np

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Attribute, Dataset

__all__ = ["CandidateFeatures"]

NUMBER_BUCKETS = 16  # a numeric attribute becomes as many columns, about equally full
_MOST_VALUES = 10_000  # of one attribute; the most frequent ones


class CandidateFeatures(tf.Module):
    """Sparse matrix `[num_candidates, len(names)]`; rows have unit length.

    Each value of a categorical attribute and each bucket of a numeric one is a column, so
    a candidate without any interactions still gets an embedding that says something.

    Attributes:
        names: Of the columns, such as `genres=Drama` and `year<1995`.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        rows: list[np.ndarray] = []
        columns: list[np.ndarray] = []
        self.names: list[str] = []
        for name, attribute in sorted(dataset.attributes.items()):
            own_rows, own_columns, names = _columns(name, attribute)
            rows.append(own_rows)
            columns.append(own_columns + len(self.names))
            self.names += names
        row = np.concatenate([np.empty(0, np.int64), *rows])
        column = np.concatenate([np.empty(0, np.int64), *columns])
        order = np.lexsort((column, row))
        row, column = row[order], column[order]
        counts = np.bincount(row, minlength=len(dataset.candidate_ids))
        values = (1.0 / np.sqrt(counts[row])).astype(np.float32)
        self._starts = tf.constant(np.concatenate([[0], np.cumsum(counts)]), tf.int64)
        self._columns = tf.constant(column, tf.int64)
        self._values = tf.constant(values, tf.float32)
        self._num_candidates = len(dataset.candidate_ids)

    def project(self, weights: tf.Tensor, candidates: tf.Tensor | None = None) -> tf.Tensor:
        """What the features add to embeddings.

        Args:
            weights: Float32 `[len(names), d]`.
            candidates: Positions int32 `[n]`; None means all, in order.

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
        kept = sorted(sorted(counts), key=lambda value: -counts[value])[:_MOST_VALUES]
        place = {value: column for column, value in enumerate(kept)}
        pairs = [
            (row, place[value])
            for row, values in enumerate(attribute.values)
            for value in dict.fromkeys(values)
            if value in place
        ]
        cells = np.asarray(pairs, np.int64).reshape(-1, 2)
        return cells[:, 0], cells[:, 1], [f"{name}={value}" for value in kept]
    assert attribute.numbers is not None
    known = np.flatnonzero(np.isfinite(attribute.numbers))
    numbers = attribute.numbers[known]
    if not len(known):
        return known, known, []
    borders = np.unique(np.quantile(numbers, np.arange(1, NUMBER_BUCKETS) / NUMBER_BUCKETS))
    names = [*(f"{name}<{border:g}" for border in borders), f"{name}>={borders[-1]:g}"]
    return known, np.searchsorted(borders, numbers, side="right"), names
