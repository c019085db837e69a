"""What the features of a request add to its query, inside a servable."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.dataset import FILTER_SEPARATOR
from shortlist.export.data.features import FeatureColumns
from shortlist.export.towers.ids import IdLookup
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["FeatureQueries"]

_NAME = f"(?s){FILTER_SEPARATOR}.*$"
_VALUE = f"(?s)^[^{FILTER_SEPARATOR}]*{FILTER_SEPARATOR}"
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\s*"


class FeatureQueries(tf.Module):
    """A learned vector for each value of a feature, and for each bucket of a number.

    Attributes:
        columns: Columns of the features.
    """

    def __init__(self, columns: FeatureColumns, weights: npt.NDArray[np.float32]) -> None:
        """Copy the vectors `[num_columns, d]`."""
        super().__init__()
        self.columns = columns
        self._num_columns = len(columns.names)
        numeric = [name for name, borders in columns.borders.items() if len(borders)]
        buckets = {column for name in numeric for column in range(*columns.spans[name])}
        categories = [column for column in range(self._num_columns) if column not in buckets]
        self._values = IdLookup([columns.names[column] for column in categories])
        self._places = tf.constant([*categories, self._num_columns], tf.int32)
        # The last row, of zeros, is for what has no column.
        self._weights = tf.Variable(np.pad(weights, [(0, 1), (0, 0)]), trainable=False)
        self._num_numeric = len(numeric)
        if numeric:
            self._names = IdLookup(numeric)
            borders = np.full(
                [len(numeric) + 1, max(len(columns.borders[name]) for name in numeric)], np.inf
            )
            for row, name in enumerate(numeric):
                borders[row, : len(columns.borders[name])] = columns.borders[name]
            self._borders = tf.constant(borders, tf.float64)
            self._first = tf.constant([*(columns.spans[name][0] for name in numeric), 0], tf.int32)

    @classmethod
    def restored(cls, stored: StoredModule, structure: Mapping[str, Any]) -> Self:
        """Return the vectors of a version; `structure` is `columns.as_json()`."""
        return cls(FeatureColumns.from_json(structure), stored.value("_weights")[:-1])

    def __call__(self, features: tf.Tensor) -> tf.Tensor:
        """Return the sum of the features' vectors.

        Unknown names and values add nothing.

        Args:
            features: String `[batch, f]` of `name=value`; "" is padding.

        Returns:
            Float32 `[batch, d]`.
        """
        weights = tf.convert_to_tensor(self._weights)
        return tf.reduce_sum(tf.gather(weights, self._columns(features)), axis=1)

    def known(self, features: tf.Tensor) -> tf.Tensor:
        """Return how many of the features have a vector, int32 `[batch]`."""
        known = self._columns(features) < self._num_columns
        return tf.reduce_sum(tf.cast(known, tf.int32), axis=1)

    def _columns(self, features: tf.Tensor) -> tf.Tensor:
        columns = tf.gather(self._places, self._values(features))
        return self._with_numbers(features, columns) if self._num_numeric else columns

    def _with_numbers(self, features: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
        places = self._names(tf.strings.regex_replace(features, _NAME, ""))
        texts = tf.strings.regex_replace(features, _VALUE, "")
        numeric = places < self._num_numeric
        valid = numeric & tf.strings.regex_full_match(texts, _NUMBER)
        numbers = tf.strings.to_number(tf.strings.strip(tf.where(valid, texts, "0")), tf.float64)
        above = numbers[..., None] >= tf.gather(self._borders, places)
        buckets = tf.reduce_sum(tf.cast(above, tf.int32), axis=-1)
        buckets += tf.gather(self._first, places)
        return tf.where(numeric, tf.where(valid, buckets, self._num_columns), columns)
