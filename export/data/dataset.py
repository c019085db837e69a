"""The common form of interactions, whatever their source."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.data.config import DataConfig

__all__ = ["FILTER_SEPARATOR", "Attribute", "Context", "Dataset"]

FILTER_SEPARATOR = "="  # between name and value in a filter or feature


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A property of candidates or users, such as genre (several values each) or age (a number).

    Exactly one of `values` and `numbers` is set.

    Attributes:
        values: For a categorical attribute, `[num_rows]` tuples of strings; a candidate or user
            may have none, one or several.
        numbers: For a numeric attribute, float64 `[num_rows]`; NaN if unknown.
    """

    values: tuple[tuple[str, ...], ...] | None = None
    numbers: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if (self.values is None) == (self.numbers is None):
            raise ValueError("an attribute needs either values or numbers")

    def take(self, rows: slice | npt.NDArray[np.int64]) -> "Attribute":
        """Return the attribute of some rows."""
        if self.numbers is not None:
            return Attribute(numbers=self.numbers[rows])
        assert self.values is not None
        if isinstance(rows, slice):
            return Attribute(values=self.values[rows])
        return Attribute(values=tuple(self.values[row] for row in rows.tolist()))


@dataclass(frozen=True, kw_only=True)
class Context:
    """A circumstance of each interaction, such as the device or the hour of day.

    Attributes:
        values: Distinct values.
        codes: int8 or int32 `[num_interactions]`, positions in `values`; -1 if unknown.
    """

    values: tuple[str, ...]
    codes: npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Interactions between users and candidates, with the catalogue they refer to.

    Ids are strings. Interactions refer to them by position, so that 25 million of them take
    100 MB per column.

    Attributes:
        name: Name of the data in logs and manifests, such as `movielens/100k`.
        user_ids: `[num_users]` distinct user ids.
        candidate_ids: `[num_candidates]` distinct candidate ids, the whole catalogue; some
            may have no interactions.
        user_positions: int32 `[num_interactions]`, into `user_ids`.
        candidate_positions: int32 `[num_interactions]`, into `candidate_ids`.
        ratings: float32 `[num_interactions]`, or None if the data has none.
        timestamps: int64 `[num_interactions]`, seconds since the epoch, or None.
        titles: `[num_candidates]`, display name of each candidate.
        attributes: Properties of the candidates by name; filters name them, so a name is not
            empty and has no "=".
        words: Words of the candidates' texts by the name of the text; they are features of
            candidates, but no filters.
        user_attributes: Properties of the users by name; requests name them as features.
        context: Circumstances of the interactions by name; requests name them as features, so
            that a name is not also that of a user attribute.
        weights: float32 `[num_interactions]`, what each interaction counts, in the range of
            `history_weight` in requests; None if all count 1.
        source: Configuration that it was loaded with; None if it was not loaded.
        skipped: Number of interactions that were left out because they are faulty, by fault.
        notes: Lines for the user about how the data was read.
    """

    name: str
    user_ids: tuple[str, ...]
    candidate_ids: tuple[str, ...]
    user_positions: npt.NDArray[np.int32]
    candidate_positions: npt.NDArray[np.int32]
    ratings: npt.NDArray[np.float32] | None = None
    timestamps: npt.NDArray[np.int64] | None = None
    titles: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    words: Mapping[str, Attribute] = field(default_factory=dict)
    user_attributes: Mapping[str, Attribute] = field(default_factory=dict)
    context: Mapping[str, Context] = field(default_factory=dict)
    weights: npt.NDArray[np.float32] | None = None
    source: DataConfig | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.attributes, *self.user_attributes, *self.context):
            if not name or FILTER_SEPARATOR in name:
                raise ValueError(
                    f"attribute name {name!r} must not be empty or contain {FILTER_SEPARATOR!r}, "
                    f"which separates name{FILTER_SEPARATOR}value in filters and features; rename "
                    "the column"
                )
        for name in self.context:
            if name in self.user_attributes:
                raise ValueError(
                    f"{name!r} is both an attribute of users and a context column; rename one"
                )

    @property
    def num_interactions(self) -> int:
        """Number of interactions."""
        return len(self.user_positions)

    def user_counts(self, part: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Number of some interactions by user, int64 `[num_users]`."""
        return np.bincount(self.user_positions[part], minlength=len(self.user_ids))

    def candidate_counts(self, part: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Number of some interactions by candidate, int64 `[num_candidates]`."""
        return np.bincount(self.candidate_positions[part], minlength=len(self.candidate_ids))

    def without(self, candidate_ids: Collection[str]) -> "Dataset":
        """Return the data without some candidates and the interactions with them."""
        gone = np.array([key in candidate_ids for key in self.candidate_ids], np.bool_)
        if not gone.any():
            return self
        kept, place = np.flatnonzero(~gone), np.cumsum(~gone, dtype=np.int32) - 1
        rows = np.flatnonzero(~gone[self.candidate_positions])
        own: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[rows]
            for name in ("user_positions", "ratings", "timestamps", "weights")
        }
        for name in ("candidate_ids", "titles"):
            own[name] = tuple(getattr(self, name)[row] for row in kept.tolist())
        for name in ("attributes", "words"):
            own[name] = {key: values.take(kept) for key, values in getattr(self, name).items()}
        return replace(
            self,
            **own,
            candidate_positions=place[self.candidate_positions[rows]],
            context={
                name: replace(values, codes=values.codes[rows])
                for name, values in self.context.items()
            },
        )

    def in_user_order(
        self, part: npt.NDArray[np.int64], random: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Sort positions of interactions by user, then by time or, without times, at random."""
        within: npt.NDArray[np.int64]
        within = random.permutation(len(part)) if self.timestamps is None else self.timestamps[part]
        return part[np.lexsort((part, within, self.user_positions[part]))]
