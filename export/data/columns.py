"""Columns of the files that a data set is read from: names, types, and what they are read as."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.export.data.config import DataConfig, DataError, option_of
from shortlist.export.data.loading import is_named
from shortlist.export.data.reading.attributes import attribute_of
from shortlist.export.data.reading.roles import FIELDS
from shortlist.export.data.reading.rows import Rows, Source, open_source
from shortlist.export.data.reading.values import MISSING, plain_text, trimmed
from shortlist.export.data.sources.tabular import (
    catalogue_roles,
    dialect_of,
    roles_of,
    users_column,
)

__all__ = ["Column", "FileColumns", "describe_columns"]

_SAMPLE = 10_000  # rows that tell types
_EXAMPLES = 3
_TIME = r"^\d{4}-\d\d?-\d\d?(?:[ Tt]\d\d?:.*)?$"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a file.

    Attributes:
        name: Name.
        kind: Type, such as `whole numbers`.
        examples: Some of its values.
        distinct: Number of different values in the first rows.
        missing: Number of missing values in the first rows.
        role: What it is read as, such as `users`; None if it is not read.
        why: Reason for the role, such as the option that named it.
    """

    name: str
    kind: str
    examples: tuple[str, ...]
    distinct: int
    missing: int
    role: str | None
    why: str


@dataclass(frozen=True, kw_only=True)
class FileColumns:
    """Columns of a file, or of several files with the same ones.

    Attributes:
        name: Name of the file.
        part: What it describes.
        columns: Its columns.
        sampled: Number of first rows that types and examples come from.
        notes: Lines for the user about how it is read.
    """

    name: str
    part: Literal["interactions", "candidates", "users"]
    columns: tuple[Column, ...]
    sampled: int
    notes: tuple[str, ...]


def describe_columns(config: DataConfig) -> tuple[FileColumns, ...]:
    """Return the columns of each file that the data is read from, by its first rows.

    Data by name and MovieLens releases have known columns, which are left out.

    Raises:
        DataError: A file is missing or cannot be read, or lacks a column.
    """
    files: list[FileColumns] = []
    if not is_named(config):
        source = open_source(config.sources, dialect_of(config), query=config.query, limit=_SAMPLE)
        try:
            roles = roles_of(source, config)
        except DataError:  # `load` raises it, too; until then the columns help to choose
            return (_file(source, "interactions", {}),)
        read = {column: (role, _why(config, role)) for role, column in roles.items() if column}
        read |= dict.fromkeys(config.context_columns, ("context", "--context-column"))
        files.append(_file(source, "interactions", read))
        if config.candidates_file is not None:
            assert roles["candidates"] is not None
            files.append(_catalogue(config, roles["candidates"]))
    if config.users_file is not None:
        source = open_source([config.users_file], dialect_of(config))
        read = dict.fromkeys(source.columns, ("attribute", "column of --users"))
        read[users_column(source, config)] = ("users", _why(config, "users"))
        files.append(_file(source, "users", read))
    return tuple(files)


def _catalogue(config: DataConfig, key_column: str) -> FileColumns:
    assert config.candidates_file is not None
    source = open_source([config.candidates_file], dialect_of(config))
    read = dict.fromkeys(source.columns, ("attribute", "column of --candidates"))
    column, title = catalogue_roles(source, config, key_column)
    read[column] = ("candidates", "--item-id-column" if config.item_id_column else "usual name")
    if title is not None:
        read[title] = ("titles", "--title-column" if config.title_column else "usual name")
    for name in config.text_columns:
        if name != title:
            read[name] = ("text", "--text-column")
    return _file(source, "candidates", read)


def _why(config: DataConfig, role: str) -> str:
    field = FIELDS[role]
    usual = getattr(config, field) == getattr(DataConfig, field)
    return "usual name" if usual else option_of(field)


def _file(
    source: Source,
    part: Literal["interactions", "candidates", "users"],
    read: Mapping[str, tuple[str, str]],
) -> FileColumns:
    head = source.head(_SAMPLE)
    return FileColumns(
        name=source.name,
        part=part,
        columns=tuple(_column(head, name, *read.get(name, (None, ""))) for name in source.columns),
        sampled=len(head),
        notes=tuple(source.notes),
    )


def _column(rows: Rows, name: str, role: str | None, why: str) -> Column:
    values = rows.columns.column(name)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if plain_text(values.type):
        values = pc.fill_null(trimmed(values), "")
        missing = pc.is_in(values, pa.array(MISSING, values.type))
    else:
        missing = pc.is_null(values, nan_is_null=pa.types.is_floating(values.type))
    known = values.filter(pc.invert(missing))
    texts = [str(value) for value in known.slice(0, 1000).to_pylist()]
    nested = pa.types.is_nested(values.type)
    return Column(
        name=name,
        kind=_kind(rows, name, known),
        examples=tuple(dict.fromkeys(texts))[:_EXAMPLES],
        distinct=len(set(texts)) if nested else len(pc.unique(known)),
        missing=len(values) - len(known),
        role=role,
        why=why,
    )


def _kind(rows: Rows, name: str, known: pa.ChunkedArray) -> str:
    """Return the type of a column in words, by its values that are not missing."""
    if not len(known):
        return "empty"
    if pa.types.is_temporal(known.type):
        return "times"
    if pa.types.is_boolean(known.type):
        return "true or false"
    if pa.types.is_nested(known.type):
        return "lists" if pa.types.is_list(known.type) else str(known.type)
    if plain_text(known.type):
        texts = trimmed(known)
        if pc.all(pc.match_substring_regex(texts, _TIME)).as_py():
            return "times"
        if pc.all(pc.is_in(pc.utf8_lower(texts), pa.array(["true", "false"], texts.type))).as_py():
            return "true or false"
    numbers = attribute_of(rows, name).numbers  # as in --candidates
    if numbers is None:
        return "text"
    numbers = numbers[np.isfinite(numbers)]
    return "whole numbers" if (numbers == np.floor(numbers)).all() else "numbers"
