"""Builds a `Dataset` from the rows of any source."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Attribute, Context, Dataset

__all__ = [
    "Catalogue",
    "Interactions",
    "assemble",
    "ids_of",
    "merge_rows",
    "natural_order",
    "sorted_rows",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Interactions of a source; every array is `[num_rows]`.

    Attributes:
        users: Distinct user ids.
        user_codes: int32, positions in `users`.
        keys: Distinct candidate ids of the source.
        key_codes: int32, positions in `keys`.
        ratings: float32, or None.
        timestamps: int64, seconds since the epoch, or None.
        weights: float32, what the rows count, or None.
        where: Location of a row for messages, such as `ratings.csv, line 17`.
        context: Context of the rows by name.
    """

    users: Sequence[str]
    user_codes: npt.NDArray[np.int32]
    keys: Sequence[str]
    key_codes: npt.NDArray[np.int32]
    ratings: npt.NDArray[np.float32] | None
    timestamps: npt.NDArray[np.int64] | None
    where: Callable[[int], str]
    weights: npt.NDArray[np.float32] | None = None
    context: Mapping[str, Context] = field(default_factory=dict)

    @classmethod
    def of_columns(
        cls,
        users: pa.ChunkedArray,
        keys: pa.ChunkedArray,
        *,
        ratings: npt.NDArray[np.float32] | None,
        timestamps: npt.NDArray[np.int64] | None,
        where: Callable[[int], str],
        context: Mapping[str, Context] | None = None,
    ) -> Self:
        """Create interactions from dictionary columns of user and candidate ids."""
        user_ids, user_codes = ids_of(users)
        candidate_keys, key_codes = ids_of(keys)
        return cls(
            users=user_ids,
            user_codes=user_codes,
            keys=candidate_keys,
            key_codes=key_codes,
            ratings=ratings,
            timestamps=timestamps,
            where=where,
            context=context or {},
        )


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Candidates of a source; every sequence is `[num_entries]`.

    Attributes:
        keys: Ids in the interactions.
        ids: Ids in servables; entries with the same id become one candidate.
        titles: Display names.
        attributes: Attributes by name.
        where: Name of the catalogue in messages.
    """

    keys: Sequence[str]
    ids: Sequence[str]
    titles: Sequence[str]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    where: str


def assemble(name: str, interactions: Interactions, catalogue: Catalogue) -> Dataset:
    """Build a dataset whose order does not depend on the order of the rows.

    Catalogue entries with the same id become one candidate, at the place of the first entry. It
    has the interactions and categorical values of all of them, and the first known number.

    Raises:
        DataError: The candidate of an interaction is not in the catalogue; a rating is not
            finite; there are no interactions.
    """
    if not len(interactions.user_codes):
        raise DataError(f"{name} has no interactions; it needs at least one")
    position_of, merged, first = _merged(catalogue.ids)
    if len(first) < len(merged):
        _log_merge(name, catalogue, merged, len(first))
    candidates = _positions(interactions, catalogue, merged)
    if interactions.ratings is not None:
        _check_ratings(interactions)
    order, rank = natural_order(interactions.users)
    users = rank[interactions.user_codes]
    keys = (candidates, interactions.timestamps, users)  # the last decides first
    sort = sorted_rows([key for key in keys if key is not None])
    return Dataset(
        name=name,
        user_ids=tuple(interactions.users[i] for i in order),
        candidate_ids=tuple(position_of),
        user_positions=users[sort],
        candidate_positions=candidates[sort],
        ratings=None if interactions.ratings is None else interactions.ratings[sort],
        timestamps=None if interactions.timestamps is None else interactions.timestamps[sort],
        weights=None if interactions.weights is None else interactions.weights[sort],
        titles=tuple(catalogue.titles[i] for i in first),
        attributes={
            key: _merge(attribute, merged, first) for key, attribute in catalogue.attributes.items()
        },
        context={
            key: Context(values=context.values, codes=context.codes[sort])
            for key, context in interactions.context.items()
        },
    )


def sorted_rows(keys: Sequence[npt.NDArray[np.integer]]) -> npt.NDArray[np.intp]:
    """Sort as `np.lexsort`, but by one number if the keys fit into it, which is faster."""
    widths = [(int(key.max()) - int(key.min())).bit_length() for key in keys]
    if sum(widths) > 63:
        return np.lexsort(keys)
    joined = np.zeros(len(keys[0]), np.int64)
    for key, width in zip(reversed(keys), reversed(widths), strict=True):
        joined = (joined << width) + (key.astype(np.int64) - int(key.min()))
    return np.argsort(joined, kind="stable")


def merge_rows(
    ids: Sequence[str], attributes: Mapping[str, Attribute]
) -> tuple[dict[str, int], dict[str, Attribute]]:
    """Return the position of each distinct id, and the attributes of its rows united."""
    position_of, merged, first = _merged(ids)
    return position_of, {key: _merge(value, merged, first) for key, value in attributes.items()}


def _merged(
    ids: Sequence[str],
) -> tuple[dict[str, int], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Position of each distinct id; the position of each row; the first row of each position."""
    position_of: dict[str, int] = {}
    merged = np.asarray([position_of.setdefault(i, len(position_of)) for i in ids])
    first = np.full(len(position_of), len(merged))
    np.minimum.at(first, merged, np.arange(len(merged)))
    return position_of, merged, first


def ids_of(column: pa.ChunkedArray | pa.Array) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Distinct values of a dictionary column, and the position of each row's value in them."""
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # more than 2 GiB
        column = pa.concat_arrays(column.chunks)
    return column.dictionary.to_pylist(), column.indices.to_numpy(zero_copy_only=False).astype(
        np.int32, copy=False
    )


def natural_order(ids: Sequence[str]) -> tuple[list[int], npt.NDArray[np.int32]]:
    """Sort ids: whole numbers by value, then all other ids.

    Returns:
        Indices into `ids` in this order; and the rank of each id, int32 `[len(ids)]`.
    """

    def key(index: int) -> tuple[bool, int, str, str]:
        text = ids[index]
        if text.isascii() and text.isdigit():
            digits = text.lstrip("0")
            return False, len(digits), digits, text
        return True, 0, text, text

    order = sorted(range(len(ids)), key=key)
    rank = np.empty(len(ids), np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    return order, rank


def _positions(
    interactions: Interactions, catalogue: Catalogue, merged: npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    entry_of = {key: entry for entry, key in enumerate(catalogue.keys)}
    entries = np.asarray([entry_of.get(key, -1) for key in interactions.keys])
    unknown = np.flatnonzero(entries[interactions.key_codes] < 0)
    if unknown.size:
        key = interactions.keys[interactions.key_codes[unknown[0]]]
        raise DataError(
            f"{interactions.where(int(unknown[0]))}: candidate {key!r} is not in "
            f"{catalogue.where}; add it there or remove the row "
            f"({unknown.size} rows like this)"
        )
    return merged[entries][interactions.key_codes].astype(np.int32)


def _check_ratings(interactions: Interactions) -> None:
    assert interactions.ratings is not None
    bad = np.flatnonzero(~np.isfinite(interactions.ratings))
    if bad.size:
        raise DataError(
            f"{interactions.where(int(bad[0]))}: the rating {interactions.ratings[bad[0]]} is not "
            "a finite number; correct or remove the row"
        )


def _log_merge(
    name: str, catalogue: Catalogue, merged: npt.NDArray[np.int64], num_candidates: int
) -> None:
    repeated = catalogue.ids[int(np.flatnonzero(np.bincount(merged)[merged] > 1)[0])]
    log.info(
        "%s: %d catalogue entries share %d candidate ids (such as %r) and are merged",
        name,
        len(merged),
        num_candidates,
        repeated,
    )


def _merge(
    attribute: Attribute, merged: npt.NDArray[np.int64], first: npt.NDArray[np.int64]
) -> Attribute:
    if len(first) == len(merged):
        return attribute
    if attribute.values is not None:
        united: list[dict[str, None]] = [{} for _ in first]
        for position, values in zip(merged.tolist(), attribute.values, strict=True):
            united[position].update(dict.fromkeys(values))
        return Attribute(values=tuple(tuple(values) for values in united))
    assert attribute.numbers is not None
    numbers = np.full(len(first), np.nan)
    for position, number in zip(merged.tolist(), attribute.numbers.tolist(), strict=True):
        if np.isnan(numbers[position]):
            numbers[position] = number
    return Attribute(numbers=numbers)
