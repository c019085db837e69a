"""Filters over candidate attributes, inside a servable."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from shortlist.export._tf import tf
from shortlist.export.data.dataset import FILTER_SEPARATOR, Attribute
from shortlist.export.data.pairs import Pairs
from shortlist.export.towers.ids import IdLookup
from shortlist.export.towers.pair_table import PairTable

__all__ = ["CandidateFilter"]


class CandidateFilter(tf.Module):
    """Finds the candidates that satisfy conditions such as `genre=Comedy` or `year=1990`.

    Each `attribute=value` of a categorical attribute has a list of its candidates; each
    numeric attribute has a column.
    """

    def __init__(self, attributes: Mapping[str, Attribute], num_candidates: int) -> None:
        """Index the attributes."""
        super().__init__()
        self._num_candidates = num_candidates
        lists: dict[str, list[int]] = {}
        numbers: dict[str, np.ndarray] = {}
        categorical = []
        for name, attribute in sorted(attributes.items()):
            if attribute.values is not None:
                categorical.append(name)
                for position, values in enumerate(attribute.values):
                    for value in dict.fromkeys(spelt for own in values for spelt in _spelt(own)):
                        lists.setdefault(f"{name}{FILTER_SEPARATOR}{value}", []).append(position)
            elif attribute.numbers is not None:
                numbers[name] = attribute.numbers
        self.categorical = tuple(categorical)
        self.numeric = tuple(numbers)
        self._is_categorical = IdLookup(categorical)
        self._is_numeric = IdLookup(list(numbers))
        self._terms = IdLookup(list(lists))
        cells = [(row, position) for row, own in enumerate(lists.values()) for position in own]
        terms, positions = np.array(cells, np.int32).reshape(-1, 2).T
        self._candidates = PairTable(Pairs.by_row(terms, positions, num_rows=len(lists)))
        columns = np.stack(list(numbers.values())) if numbers else np.zeros([0, num_candidates])
        self._columns = tf.Variable(columns, dtype=tf.float64, trainable=False)

    def mask(
        self,
        filter_any: tf.Tensor,
        filter_all: tf.Tensor,
        filter_min: tf.Tensor,
        filter_max: tf.Tensor,
    ) -> tf.Tensor:
        """Return which candidates satisfy all four filters; every candidate satisfies an empty one.

        Empty strings are ignored. No candidate satisfies an unknown value; an unknown
        attribute makes the request fail.

        Args:
            filter_any: String `[n]` of `attribute=value`; at least one must hold.
            filter_all: String `[n]` of `attribute=value`; all must hold.
            filter_min: String `[n]` of `attribute=number`, inclusive lower bounds.
            filter_max: String `[n]` of `attribute=number`, inclusive upper bounds.

        Returns:
            Bool `[num_candidates]`. A candidate without a number satisfies no bound.
        """
        with tf.name_scope("candidate_filter"):
            return tf.logical_and(
                tf.logical_and(self._any(filter_any), self._all(filter_all)),
                tf.logical_and(
                    self._bounds(filter_min, tf.greater_equal, tf.math.unsorted_segment_max),
                    self._bounds(filter_max, tf.less_equal, tf.math.unsorted_segment_min),
                ),
            )

    def _any(self, terms: tf.Tensor) -> tf.Tensor:
        terms = _conditions(terms)
        return tf.logical_or(tf.equal(tf.size(terms), 0), self._holding(terms) > 0)

    def _all(self, terms: tf.Tensor) -> tf.Tensor:
        terms = _conditions(terms)
        return tf.equal(self._holding(terms), tf.size(terms))

    def _holding(self, terms: tf.Tensor) -> tf.Tensor:
        """Return the number of distinct terms per candidate, int32 `[num_candidates]`."""
        with tf.control_dependencies(
            [_check_attributes(terms, self._is_categorical, self.categorical, "categorical")]
        ):
            rows = tf.cast(self._terms(terms), tf.int64)
        positions = self._candidates.columns(rows).flat_values
        return tf.math.unsorted_segment_sum(
            tf.ones_like(positions), positions, self._num_candidates
        )

    def _bounds(
        self,
        terms: tf.Tensor,
        holds: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        strictest: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    ) -> tf.Tensor:
        terms = _conditions(terms)
        with tf.control_dependencies(
            [_check_attributes(terms, self._is_numeric, self.numeric, "numeric")]
        ):
            rows = self._is_numeric(_attribute(terms))
            values = tf.strings.regex_replace(
                terms, f"(?s)^[^{FILTER_SEPARATOR}]*{FILTER_SEPARATOR}", ""
            )
        numbers = tf.strings.to_number(values, tf.float64)
        # One bound per attribute, however many a request names: each costs a pass over the corpus.
        attributes, places = tf.unique(rows)
        count = tf.size(attributes)
        bounds = strictest(numbers, places, count)
        nan = tf.cast(tf.math.is_nan(numbers), tf.int32)  # nothing satisfies it
        has_nan = tf.math.unsorted_segment_max(nan, places, count) > 0
        bounds = tf.where(has_nan, tf.constant(math.nan, tf.float64), bounds)
        columns = tf.gather(self._columns, attributes)
        return tf.reduce_all(holds(columns, bounds[:, None]), axis=0)


def _spelt(value: str) -> tuple[str, ...]:
    """Return the spellings that find a value: Python, SQL and JSON spell truth differently."""
    plain = value.lower()
    return (value, plain, value.capitalize()) if plain in ("true", "false") else (value,)


def _conditions(terms: tf.Tensor) -> tf.Tensor:
    """Return the distinct terms that are not empty."""
    return tf.unique(tf.boolean_mask(terms, tf.not_equal(terms, ""))).y


def _attribute(terms: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_replace(terms, f"(?s){FILTER_SEPARATOR}.*$", "")


def _check_attributes(
    terms: tf.Tensor, lookup: IdLookup, names: tuple[str, ...], kind: str
) -> tf.Operation:
    known = lookup(_attribute(terms)) < len(names)
    well_formed = tf.strings.regex_full_match(
        terms, f"(?s)[^{FILTER_SEPARATOR}]+{FILTER_SEPARATOR}.*"
    )
    message = (
        f"a filter must be attribute{FILTER_SEPARATOR}value with one of the {kind} attributes: "
        f"{', '.join(names) or 'this servable has none'}"
    )
    return tf.debugging.Assert(tf.reduce_all(tf.logical_and(known, well_formed)), [message, terms])
