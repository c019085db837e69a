"""Reads interactions and a catalogue from files, folders and databases of any form."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.data.dataset import Attribute, Context, Dataset
from shortlist.export.data.reading.attributes import attribute_of, typed
from shortlist.export.data.reading.delimited import Dialect
from shortlist.export.data.reading.roles import (
    Role,
    check_roles,
    described,
    find_column,
    no_column,
)
from shortlist.export.data.reading.rows import Rows, Source, check_columns, open_source
from shortlist.export.data.reading.times import times_of_column
from shortlist.export.data.reading.values import (
    Ids,
    ids_of_column,
    numbers_of_column,
    required_numbers,
)
from shortlist.export.data.sources._assemble import (
    Catalogue,
    Interactions,
    assemble,
    natural_order,
)
from shortlist.export.data.sources.features import UserTable, context_of
from shortlist.export.data.sources.weights import weights_of

__all__ = [
    "CandidateRows",
    "catalogue_roles",
    "columns_of",
    "dialect_of",
    "read_candidates",
    "read_columns",
    "read_table",
    "read_users",
    "roles_of",
    "users_column",
]

_COMPARED = 2000  # ids, to find near spellings for a message


def read_table(config: DataConfig) -> Dataset:
    """Read interactions and, if configured, the catalogue from another file.

    Raises:
        DataError: A file or column is missing, empty or faulty, or the candidate of an
            interaction is not in the catalogue.
    """
    source, roles, catalogue_source = _opened(config)
    users_column, key_column = roles["users"], roles["candidates"]
    assert users_column is not None
    assert key_column is not None
    names = [column for column in roles.values() if column] + [*config.context_columns]
    ids = {users_column, key_column, *config.context_columns}
    if roles["events"]:
        ids.add(roles["events"])
    rows = source.read(names, ids=ids, exact=bool(config.context_columns))
    users, keys = ids_of_column(rows, users_column), ids_of_column(rows, key_column)
    ratings = _ratings(rows, roles["ratings"], required=config.rating_column is not None)
    if ratings is None:
        roles["ratings"] = None
    times = None
    if roles["times"]:
        times = times_of_column(rows, roles["times"], config.timestamp_format)
    weights, left_out = weights_of(rows, config)
    catalogue = None
    if catalogue_source is not None:
        catalogue = _catalogue(catalogue_source, config, key_column)
        catalogue, dropped = _with_unknown(rows, keys, catalogue, config)
        left_out = {**left_out, **dropped}
    faults = rows.faults
    kept, skipped = _kept(rows, left_out, config.skip_bad_rows)
    context = {name: _context(rows, name, kept) for name in config.context_columns}
    used_users, used_keys = _used(users, kept), _used(keys, kept)
    interactions = Interactions(
        users=used_users.values,
        user_codes=used_users.codes,
        keys=used_keys.values,
        key_codes=used_keys.codes,
        ratings=None if ratings is None else ratings[kept],
        timestamps=None if times is None else times[kept],
        weights=None if weights is None else weights[kept],
        where=lambda row: f"{source.name}, {faults.place(int(kept[row]))}",
        context=context,
    )
    catalogue = catalogue or _own_catalogue(used_keys.values)
    del rows  # frees its columns before the sorting
    dataset = assemble(source.short_name, interactions, catalogue)
    notes = [f"{source.short_name}: {described(source.columns, roles, config.context_columns)}"]
    notes += source.notes if catalogue_source is None else source.notes + catalogue_source.notes
    return dataclasses.replace(dataset, skipped=skipped, notes=tuple(notes))


def _opened(config: DataConfig) -> tuple[Source, dict[str, str | None], Source | None]:
    """Return the interactions, the column of each role in them, and the catalogue, not yet read."""
    source = open_source(config.sources, dialect_of(config), query=config.query)
    roles = roles_of(source, config)
    if config.candidates_file is not None:
        catalogue = open_source([config.candidates_file], dialect_of(config))
        assert roles["candidates"] is not None
        catalogue_roles(catalogue, config, roles["candidates"])
        return source, roles, catalogue
    if config.text_columns:
        raise DataError(
            f"{source.name}: the text {config.text_columns[0]!r} needs a file of the candidates; "
            "name it with --candidates"
        )
    return source, roles, None


def read_users(config: DataConfig) -> UserTable:
    """Read the attributes of users from `users_file`.

    Raises:
        DataError: The file or its column of ids is missing, empty or faulty.
    """
    assert config.users_file is not None
    source = open_source([config.users_file], dialect_of(config))
    column = users_column(source, config)
    _, ids, attributes = _described(source, column, None, config)
    if not attributes:
        raise DataError(f"{source.name} has no column but {column!r}; add attributes to it")
    return UserTable(ids=ids, attributes=attributes, where=source.name)


def users_column(source: Source, config: DataConfig) -> str:
    """Return the column of the ids in a file of users.

    Raises:
        DataError: There is none.
    """
    default = DataConfig.user_column
    column = find_column("users", source.columns, config.user_column, default=default)
    if column is None:
        raise no_column("users", source.name, source.columns)
    check_columns(source.name, source.columns, [column])
    return column


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns.

    Raises:
        DataError: The file is missing, empty or of no known type.
    """
    return open_source([str(path)]).columns


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateRows:
    """A file with one row for each candidate.

    Attributes:
        rows: The file.
        ids: `[n]` distinct ids.
        titles: `[n]` titles, `""` for none; None if the file has none.
        attributes: Its other columns.
        special: Columns that are neither, of those that were asked for.
    """

    rows: Rows
    ids: Sequence[str]
    titles: Sequence[str] | None
    attributes: Mapping[str, Attribute]
    special: Sequence[str]


def read_candidates(
    path: Path,
    config: DataConfig,
    *,
    special: Sequence[str] = (),
    texts: Collection[str] = (),
    key: Literal["candidates", "users"] = "candidates",
    attributes: bool = True,
) -> CandidateRows:
    """Read a file of candidates, or of ids alone.

    Args:
        path: File.
        config: Names of its columns, and types of the attributes.
        special: Columns that are no attributes.
        texts: Attributes that are not numbers, whatever their values.
        key: What the ids name.
        attributes: Whether to read more than the ids.

    Raises:
        DataError: The file or a column is missing, empty or faulty, or an id occurs twice.
    """
    source = open_source([str(path)], dialect_of(config))
    title = None
    if key == "users":
        column = users_column(source, config)
    else:
        column, title = catalogue_roles(source, config, config.candidate_column)
    found = [name for name in special if name in source.columns]
    names = [name for name in source.columns if name not in (column, title, *found)]
    rows = source.read(source.columns if attributes else [column], ids=[column], exact=True)
    ids = ids_of_column(rows, column)
    rows.faults.check()
    if len(ids.values) < len(rows) and attributes:
        twice = ids.values[int(np.argmax(np.bincount(ids.codes)))]
        raise DataError(
            f"{source.name}: {twice!r} occurs more than once in {column!r}; keep one row for it"
        )
    kinds = {
        name: config.attribute_type(name) or ("text" if name in texts else None) for name in names
    }
    return CandidateRows(
        rows=rows,
        ids=ids.texts(),
        titles=None if title is None or not attributes else _texts(rows, title),
        attributes={name: attribute_of(rows, name, kinds[name]) for name in names if attributes},
        special=found,
    )


def _texts(rows: Rows, name: str) -> list[str]:
    return [text or "" for text in rows.columns.column(name).cast("string").to_pylist()]


def read_columns(path: Path, *, texts: Collection[str] = ()) -> Rows:
    """Read all columns of a file.

    Args:
        path: File.
        texts: Columns that must exist and have a text or number in each row, such as ids; they
            are dictionaries of texts in the result.

    Raises:
        DataError: The file or a column is missing, empty or faulty.
    """
    source = open_source([str(path)])
    check_columns(source.name, source.columns, texts)
    rows = source.read(source.columns, ids=texts, exact=True)
    columns = typed(rows)
    for name in texts:
        ids = ids_of_column(rows, name)
        rows.faults.check()
        at = columns.column_names.index(name)
        columns = columns.set_column(at, name, [ids.texts()])
    return dataclasses.replace(rows, columns=columns)


def dialect_of(config: DataConfig) -> Dialect:
    """Return how delimited text is to be read."""
    return Dialect(delimiter=config.delimiter, encoding=config.encoding)


def roles_of(source: Source, config: DataConfig) -> dict[str, str | None]:
    """Return the column of each role in a file of interactions; None if it has none.

    Raises:
        DataError: A column is missing, or has two roles.
    """
    header = source.columns
    given: tuple[tuple[Role, str | None, str | None], ...] = (
        ("users", config.user_column, DataConfig.user_column),
        ("candidates", config.candidate_column, DataConfig.candidate_column),
        ("ratings", config.rating_column, None),
        ("times", config.timestamp_column, None),
    )
    own: tuple[tuple[Role, str | None], ...] = (
        ("events", config.event_column),
        ("weights", config.weight_column),
    )
    roles: dict[str, str | None] = {}
    for role, named, default in given:
        roles[role] = find_column(role, header, named, default=default)
        if roles[role] is None and role in ("users", "candidates"):
            raise no_column(role, str(source.files[0].location), header)
    roles |= own
    check_roles(source.name, roles, config.context_columns)
    return roles


def _ratings(rows: Rows, name: str | None, *, required: bool) -> npt.NDArray[np.float32] | None:
    """Ratings, finite where a row has no fault; None without a column, or one with gaps."""
    if name is None:
        return None
    if not required:
        numbers, odd = numbers_of_column(rows, name)
        missing = (odd | ~np.isfinite(numbers)) & rows.faults.good
        if missing.any():
            rows.note(
                f"{int(missing.sum()):,} of {len(rows):,} rows have no number in {name!r}, so "
                "ratings are not read; name the column with --rating-column if you need them"
            )
            return None
    return required_numbers(rows, name).astype(np.float32)


def _kept(
    rows: Rows, left_out: Mapping[str, npt.NDArray[np.bool_]], skipped_share: float | None
) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    """Return the rows to use, and the number of the others by fault or reason."""
    kept, skipped = np.flatnonzero(rows.faults.check(skipped_share)), dict(rows.faults.counts)
    for what, rows_of in left_out.items():
        without = rows_of[kept]
        if without.any():
            skipped[what] = int(without.sum())
            kept = kept[~without]
    if not len(kept):
        raise DataError(
            f"{rows.name}: no interaction is left; left out are "
            + ", ".join(f"{count:,} rows ({what})" for what, count in skipped.items())
        )
    return kept, skipped


def _with_unknown(
    rows: Rows, keys: Ids, catalogue: Catalogue, config: DataConfig
) -> tuple[Catalogue, dict[str, npt.NDArray[np.bool_]]]:
    """Return the catalogue, with unknown candidates if they are to be added; and rows to drop."""
    known = set(catalogue.keys)
    unknown = np.fromiter((key not in known for key in keys.values), np.bool_, len(keys.values))
    wrong = np.append(unknown, False)[keys.codes]
    count = int(wrong.sum())
    if not count:
        return catalogue, {}
    key = keys.values[keys.codes[wrong.argmax()]]
    if config.unknown_candidates == "error":
        folded = {own.casefold(): own for own in catalogue.keys[:_COMPARED]}
        near = difflib.get_close_matches(key.casefold(), folded, n=1)
        rows.faults.add(
            f": candidate {key!r} is not in {catalogue.where}"
            + (f", whose nearest is {folded[near[0]]!r}" if near else ""),
            np.flatnonzero(wrong),
            "add it there, remove the row, or give --unknown-candidates drop or add",
        )
        return catalogue, {}
    before = (
        f"{count:,} of {len(rows):,} rows have a candidate that is not in {catalogue.where}, such "
        f"as {key!r}: "
    )
    if config.unknown_candidates == "drop":
        rows.note(f"{before}these rows are left out")
        return catalogue, {f"candidate not in {catalogue.where}": wrong}
    new = [key for key in keys.values if key not in known]
    rows.note(f"{before}{len(new):,} candidates are added without attributes")
    return _extended(catalogue, new), {}


def _extended(catalogue: Catalogue, new: Sequence[str]) -> Catalogue:
    """Return the catalogue with further candidates, without attributes."""
    return dataclasses.replace(
        catalogue,
        keys=[*catalogue.keys, *new],
        ids=[*catalogue.ids, *new],
        titles=[*catalogue.titles, *new],
        attributes={
            name: _longer(attribute, len(new)) for name, attribute in catalogue.attributes.items()
        },
    )


def _longer(attribute: Attribute, count: int) -> Attribute:
    """Return an attribute with further rows, without values."""
    if attribute.values is not None:
        return Attribute(values=(*attribute.values, *((),) * count))
    assert attribute.numbers is not None
    return Attribute(numbers=np.append(attribute.numbers, np.full(count, np.nan)))


def _used(ids: Ids, kept: npt.NDArray[np.int64]) -> Ids:
    """Return the ids of some rows, of which none is missing, without ids of other rows."""
    codes = ids.codes[kept]
    used = np.flatnonzero(np.bincount(codes, minlength=len(ids.values)))
    rank = np.zeros(len(ids.values), np.int32)
    rank[used] = np.arange(len(used), dtype=np.int32)
    return Ids(values=[ids.values[code] for code in used.tolist()], codes=rank[codes])


def _context(rows: Rows, name: str, kept: npt.NDArray[np.int64]) -> Context:
    ids = ids_of_column(rows, name, optional=True, check=False)
    return context_of(ids.values, ids.codes[kept])


def _own_catalogue(keys: Sequence[str]) -> Catalogue:
    order, _ = natural_order(keys)
    ids = [keys[i] for i in order]
    return Catalogue(keys=ids, ids=ids, titles=ids, where="the interactions")


def catalogue_roles(source: Source, config: DataConfig, key_column: str) -> tuple[str, str | None]:
    """Return the columns of the candidate ids and titles in a catalogue.

    Raises:
        DataError: A column is missing, or has two roles.
    """
    named = config.item_id_column or key_column
    default = None if config.item_id_column else named
    column = find_column("candidates", source.columns, named, default=default)
    if column is None:
        raise no_column("candidates", source.name, source.columns, "--item-id-column")
    title = find_column("titles", source.columns, config.title_column)
    check_columns(source.name, source.columns, [name for name in (column, title) if name])
    check_roles(source.name, {"candidates": column, "titles": title}, ())
    return column, title


def _catalogue(source: Source, config: DataConfig, key_column: str) -> Catalogue:
    column, title = catalogue_roles(source, config, key_column)
    rows, ids, attributes = _described(source, column, title, config)
    titles = _titles(rows, title, ids) if title else ids
    return Catalogue(keys=ids, ids=ids, titles=titles, attributes=attributes, where=source.name)


def _described(
    source: Source, id_column: str, title: str | None, config: DataConfig
) -> tuple[Rows, list[str], Mapping[str, Attribute]]:
    """Rows, ids and attributes of a file with one row for each candidate or user."""
    check_columns(source.name, source.columns, [id_column])
    rows = source.read(source.columns, ids=[id_column], exact=True)
    ids = ids_of_column(rows, id_column)
    rows.faults.check()
    attributes = {
        name: attribute_of(rows, name, config.attribute_type(name))
        for name in source.columns
        if name not in (id_column, title)
    }
    return rows, ids.texts(), attributes


def _titles(rows: Rows, name: str, ids: Sequence[str]) -> list[str]:
    """Titles; the id for a candidate without one."""
    titles = _texts(rows, name)
    missing = sum(not title for title in titles)
    if missing:
        rows.note(f"{missing:,} of {len(rows):,} rows have no {name!r}; their id stands for it")
    return [title or own for title, own in zip(titles, ids, strict=True)]
