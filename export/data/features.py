"""Values of attributes as columns, for candidates, users and interactions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import FILTER_SEPARATOR, Attribute, Dataset
from shortlist.export.data.pairs import Pairs

__all__ = ["AttributeColumns", "FeatureColumns", "attribute_columns"]

NUMBER_BUCKETS = 16  # a numeric attribute becomes this many columns of about equal size
_MOST_VALUES = 10_000  # per attribute; the most frequent ones
# A rarer value of a user or interaction teaches nothing about others, and tells who it was.
_FEWEST = 5
_DESCRIBED = 100  # values of a feature that are listed


@dataclass(frozen=True, kw_only=True)
class AttributeColumns:
    """Columns of one attribute: its values, or the buckets of its numbers.

    Attributes:
        names: Name of each column, such as `genre=Drama` and `year<1995`.
        borders: float64, ascending, between the buckets of a numeric attribute; None for a
            categorical one.
        rows: int64 `[num_cells]`, rows that have a value in some column.
        columns: int64 `[num_cells]`, this column.
    """

    names: tuple[str, ...]
    borders: npt.NDArray[np.float64] | None
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]


def attribute_columns(
    name: str,
    attribute: Attribute,
    *,
    counted: npt.NDArray[np.bool_] | None = None,
    fewest: int = 1,
) -> AttributeColumns:
    """Return the columns of an attribute, and which rows have which.

    Args:
        name: Name of the attribute.
        attribute: Attribute with a value for each row.
        counted: `[num_rows]`, rows that decide on the columns; None for all.
        fewest: Number of counted rows that a value needs for a column.
    """
    if attribute.numbers is not None:
        return _numeric(name, attribute.numbers, counted)
    assert attribute.values is not None
    counts: dict[str, int] = {}
    for row, values in enumerate(attribute.values):
        if counted is None or counted[row]:
            for value in values:
                counts[value] = counts.get(value, 0) + 1
    frequent = sorted(sorted(counts), key=lambda value: -counts[value])[:_MOST_VALUES]
    frequent = [value for value in frequent if counts[value] >= fewest]
    column_of = {value: column for column, value in enumerate(frequent)}
    cells = [
        (row, column_of[value])
        for row, values in enumerate(attribute.values)
        for value in values
        if value in column_of
    ]
    rows, columns = np.asarray(cells, np.int64).reshape(-1, 2).T
    names = tuple(f"{name}{FILTER_SEPARATOR}{value}" for value in frequent)
    return AttributeColumns(names=names, borders=None, rows=rows, columns=columns)


def _numeric(
    name: str, numbers: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_] | None
) -> AttributeColumns:
    known = np.isfinite(numbers)
    measured = numbers[known if counted is None else known & counted]
    borders, names = np.empty(0), tuple[str, ...]()
    if len(measured):
        borders = np.unique(np.quantile(measured, np.arange(1, NUMBER_BUCKETS) / NUMBER_BUCKETS))
        names = (*(f"{name}<{border:g}" for border in borders), f"{name}>={borders[-1]:g}")
    rows = np.flatnonzero(known & bool(names))
    columns = np.searchsorted(borders, numbers[rows], side="right")
    return AttributeColumns(names=names, borders=borders, rows=rows, columns=columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureColumns:
    """Columns of all features that requests can give: user attributes and context.

    Attributes:
        names: `[num_columns]`, such as `device=phone` and `age<31`.
        spans: First column of each feature by name, and the column after its last.
        borders: Borders between the buckets of each numeric feature by name.
        users: A row per user of the data, with the columns of the user's attributes.
        context: Column of each value of a context by name; -1 for values without a column.
    """

    names: tuple[str, ...]
    spans: Mapping[str, tuple[int, int]]
    borders: Mapping[str, npt.NDArray[np.float64]]
    users: Pairs
    context: Mapping[str, npt.NDArray[np.int64]]

    @classmethod
    def of_dataset(cls, dataset: Dataset, part: npt.NDArray[np.int64]) -> Self:
        """Return the columns of values that occur in a part of the interactions."""
        names: list[str] = []
        spans: dict[str, tuple[int, int]] = {}
        borders: dict[str, npt.NDArray[np.float64]] = {}
        rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        active = dataset.user_counts(part) > 0
        for name, attribute in sorted(dataset.user_attributes.items()):
            own = attribute_columns(name, attribute, counted=active, fewest=_FEWEST)
            if own.borders is not None:
                borders[name] = own.borders
            rows.append(own.rows)
            columns.append(own.columns + len(names))
            spans[name] = (len(names), len(names) + len(own.names))
            names += own.names
        context: dict[str, npt.NDArray[np.int64]] = {}
        for name, values in sorted(dataset.context.items()):
            codes = values.codes[part]
            counts = np.bincount(codes[codes >= 0], minlength=len(values.values))
            used = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
            used = np.sort(used[counts[used] >= _FEWEST])
            context[name] = np.full(len(values.values) + 1, -1)  # the last one for code -1
            context[name][used] = len(names) + np.arange(len(used))
            spans[name] = (len(names), len(names) + len(used))
            names += [f"{name}{FILTER_SEPARATOR}{values.values[value]}" for value in used.tolist()]
        users = Pairs.by_row(
            np.concatenate(rows), np.concatenate(columns), num_rows=len(dataset.user_ids)
        )
        return cls(names=tuple(names), spans=spans, borders=borders, users=users, context=context)

    def of(
        self,
        dataset: Dataset,
        users: npt.NDArray[np.integer],
        interactions: npt.NDArray[np.int64] | None = None,
    ) -> Pairs:
        """Return the columns of some users, and of interactions that tell their context.

        Args:
            dataset: Data that the columns were made from.
            users: `[n]`, positions of users.
            interactions: `[n]`, positions of interactions; None for no context.
        """
        places, cells = self.users.cells(users)
        rows, columns = [places], [self.users.columns[cells].astype(np.int64)]
        if interactions is not None:
            for name, column_of in self.context.items():
                own = column_of[dataset.context[name].codes[interactions]]
                rows.append(np.flatnonzero(own >= 0))
                columns.append(own[rows[-1]])
        return Pairs.by_row(np.concatenate(rows), np.concatenate(columns), num_rows=len(users))

    def only(self, features: Sequence[str]) -> tuple["FeatureColumns", npt.NDArray[np.int64]]:
        """Return the columns of some features, and which of these columns they are."""
        spans, kept = dict[str, tuple[int, int]](), [np.empty(0, np.int64)]
        start = 0
        for name in features:
            first, end = self.spans[name]
            spans[name] = (start, start + end - first)
            kept.append(np.arange(first, end))
            start += end - first
        columns = np.concatenate(kept)
        number = np.full(len(self.names) + 1, -1)  # the last one for column -1
        number[columns] = np.arange(len(columns))
        rows, cells = self.users.cells(np.arange(self.users.num_rows))
        own = number[self.users.columns[cells]]
        return FeatureColumns(
            names=tuple(self.names[column] for column in columns.tolist()),
            spans=spans,
            borders={name: self.borders[name] for name in features if name in self.borders},
            users=Pairs.by_row(rows[own >= 0], own[own >= 0], num_rows=self.users.num_rows),
            context={name: number[self.context[name]] for name in features if name in self.context},
        ), columns

    def as_json(self) -> dict[str, Any]:
        """Return what requests need of the columns, as JSON values."""
        return {
            "names": list(self.names),
            "spans": {name: list(span) for name, span in self.spans.items()},
            "borders": {name: borders.tolist() for name, borders in self.borders.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return columns for requests, without those of the users and interactions of the data."""
        nothing = np.empty(0, np.int64)
        return cls(
            names=tuple(values["names"]),
            spans={name: (first, end) for name, (first, end) in values["spans"].items()},
            borders={name: np.array(borders) for name, borders in values["borders"].items()},
            users=Pairs.by_row(nothing, nothing, num_rows=0),
            context={},
        )

    def described(self) -> dict[str, list[str]]:
        """Return, for each feature, the values that requests can give; of numbers, the ranges."""
        return {
            name: [
                text[len(name) + (name not in self.borders) :]
                for text in self.names[first : min(end, first + _DESCRIBED)]
            ]
            for name, (first, end) in self.spans.items()
            if end > first
        }
