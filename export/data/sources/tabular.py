"""Reads interactions and a catalogue from CSV or Parquet files."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.data.dataset import Attribute, Context, Dataset
from shortlist.export.data.sources._assemble import (
    Catalogue,
    Interactions,
    assemble,
    ids_of,
    natural_order,
)
from shortlist.export.data.sources._delimited import (
    CATEGORY,
    ID,
    NUMBER,
    Delimited,
    check_columns,
    check_file,
    one_line,
)
from shortlist.export.data.sources._times import TimeColumn
from shortlist.export.data.sources.features import UserTable, context_of

__all__ = ["Table", "attribute_of", "columns_of", "read_columns", "read_table", "read_users"]

_TEXT = {".csv": ",", ".tsv": "\t", ".txt": ","}
_PARQUET = {".parquet", ".pq"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of a file.

    Attributes:
        path: Path of the file.
        columns: Its columns.
        where: Location of a row, counted from 0, for messages.
    """

    path: Path
    columns: pa.Table
    where: Callable[[int], str]

    def fault(self, row: int, column: str, what: str) -> DataError:
        """Return an error for the value of a column in one row."""
        return DataError(f"{self.where(row)}, column {column!r} {what}")

    def times(self, column: str) -> TimeColumn:
        """Return a column of times."""
        return TimeColumn(
            values=self.columns.column(column), name=column, file=self.path.name, where=self.where
        )


def read_table(path: Path, config: DataConfig) -> Dataset:
    """Read interactions from one file and, if configured, the catalogue from another.

    Raises:
        DataError: A file or column is missing, empty or faulty, or the candidate of an
            interaction is not in the catalogue.
    """
    names = _header(path)
    rating = _optional(config.rating_column, "rating", names)
    timestamp = _optional(config.timestamp_column, "timestamp", names)
    if config.user_column == config.candidate_column:
        raise DataError(
            f"{path}: users and candidates cannot share the column {config.user_column!r}"
        )
    types: dict[str, pa.DataType | None] = {config.user_column: ID, config.candidate_column: ID}
    if rating:
        types[rating] = NUMBER
    if timestamp:
        types[timestamp] = None
    for context in config.context_columns:
        if context in types:
            raise DataError(
                f"{path}: column {context!r} has another meaning and cannot be a context column; "
                "name a further column"
            )
        types[context] = CATEGORY
    if config.candidates_file is not None:  # fails early
        candidates = Path(config.candidates_file).expanduser()
        check_columns(candidates, _header(candidates), [config.candidate_column])
    table = _read(path, types, optional=config.context_columns)
    interactions = Interactions.of_columns(
        table.columns.column(config.user_column),
        table.columns.column(config.candidate_column),
        ratings=table.columns.column(rating).to_numpy() if rating else None,
        timestamps=table.times(timestamp).seconds() if timestamp else None,
        where=table.where,
        context={name: _context(table, name) for name in config.context_columns},
    )
    return assemble(path.name, interactions, _catalogue(config, interactions))


def read_users(config: DataConfig) -> UserTable:
    """Read the attributes of users from `users_file`.

    Raises:
        DataError: The file or its column of ids is missing, empty or faulty.
    """
    assert config.users_file is not None
    path = Path(config.users_file).expanduser()
    _, ids, attributes = _described(path, config.user_column, None)
    if not attributes:
        raise DataError(f"{path} has no column but {config.user_column!r}; add attributes to it")
    return UserTable(ids=ids, attributes=attributes, where=str(path))


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns.

    Raises:
        DataError: The file is missing, empty or of no known type.
    """
    return _header(path)


def read_columns(path: Path, *, texts: Collection[str] = ()) -> Table:
    """Read all columns of a file.

    Args:
        path: CSV or Parquet file.
        texts: Columns that must exist and have a text or whole number in each row, such as ids;
            they are dictionaries of texts in the result.

    Raises:
        DataError: The file or a column is missing, empty or faulty.
    """
    header = _header(path)
    check_columns(path, header, texts)
    types: dict[str, pa.DataType | None] = {name: ID if name in texts else None for name in header}
    return _read(path, types, optional=set(header) - set(texts))


def _optional(name: str | None, default: str, header: tuple[str, ...]) -> str | None:
    if name is not None:
        return name
    return default if default in header else None


def _catalogue(config: DataConfig, interactions: Interactions) -> Catalogue:
    if config.candidates_file is None:
        order, _ = natural_order(interactions.keys)
        ids = [interactions.keys[i] for i in order]
        return Catalogue(keys=ids, ids=ids, titles=ids, where="the interactions")
    path = Path(config.candidates_file).expanduser()
    title = _optional(config.title_column, "title", _header(path))
    table, ids, attributes = _described(path, config.candidate_column, title)
    titles = _texts(table, title) if title else ids
    return Catalogue(keys=ids, ids=ids, titles=titles, attributes=attributes, where=str(path))


def _described(
    path: Path, id_column: str, title: str | None
) -> tuple[Table, list[str], dict[str, Attribute]]:
    """Table, ids and attributes of a file with one row for each candidate or user."""
    header = _header(path)
    types: dict[str, pa.DataType | None] = dict.fromkeys(header)
    types[id_column] = ID
    table = _read(path, types, optional=set(header) - {id_column, title})
    distinct, codes = ids_of(table.columns.column(id_column))
    ids = [distinct[code] for code in codes.tolist()]
    attributes = {
        name: attribute_of(table, name) for name in header if name not in (id_column, title)
    }
    return table, ids, attributes


def _context(table: Table, name: str) -> Context:
    return context_of(*ids_of(table.columns.column(name)))


def _header(path: Path) -> tuple[str, ...]:
    check_file(path)
    if path.suffix in _PARQUET:
        try:
            return tuple(pyarrow.parquet.read_schema(path).names)
        except pa.ArrowInvalid as exc:
            raise DataError(
                f"{path} is not a Parquet file ({one_line(exc)}); was it written to its end?"
            ) from exc
    return _delimited(path).header()


def _delimited(path: Path) -> Delimited:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    delimiter = _TEXT.get(plain.suffix.lower())
    if delimiter is None:
        raise DataError(
            f"{path} has none of the endings .csv, .tsv, .csv.gz and .parquet; rename or convert it"
        )
    return Delimited(path=path, delimiter=delimiter)


def _read(
    path: Path, types: dict[str, pa.DataType | None], *, optional: Collection[str] = ()
) -> Table:
    if path.suffix in _PARQUET:
        return _read_parquet(path, types, optional)
    file = _delimited(path)
    return Table(
        path=path,
        columns=file.read(types, optional=optional),
        where=lambda row: f"{path}, line {file.line_of(row)}",
    )


def _read_parquet(
    path: Path, types: dict[str, pa.DataType | None], optional: Collection[str]
) -> Table:
    header = _header(path)
    check_columns(path, header, types)
    try:
        columns = pyarrow.parquet.read_table(path, columns=list(types))
    except (pa.ArrowInvalid, OSError) as exc:
        raise DataError(f"{path} cannot be read ({one_line(exc)}); write it again") from exc
    if columns.num_rows == 0:
        raise DataError(f"{path} has no rows; it needs at least one")
    table = Table(path=path, columns=columns, where=lambda row: f"{path}, row {row + 1}")
    for at, (name, kind) in enumerate(types.items()):
        column = columns.column(name)
        if column.null_count and name not in optional:
            row = pc.index(pc.is_null(column), True).as_py()
            raise table.fault(row, name, "is empty; fill it in or remove the row")
        if kind is ID:
            column = _parquet_ids(table, name, column)
        elif kind is CATEGORY:
            column = _parquet_texts(table, name, column, "categories").fill_null("")
            column = column.dictionary_encode()
        elif kind is not None:
            try:
                column = column.cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
                raise DataError(
                    f"{path}, column {name!r} contains no numbers ({one_line(exc)}); convert it"
                ) from exc
        columns = columns.set_column(at, name, column)
    return Table(path=path, columns=columns, where=table.where)


def _parquet_ids(table: Table, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = _parquet_texts(table, name, column, "ids")
    empty = pc.index(column, "").as_py()
    if empty >= 0:
        raise table.fault(empty, name, "is empty; fill it in or remove the row")
    return column.dictionary_encode()


def _parquet_texts(table: Table, name: str, column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (text or pa.types.is_integer(kind)):
        raise DataError(
            f"{table.path}, column {name!r} is of type {column.type}; "
            f"{what} must be strings or whole numbers: convert it"
        )
    return column.cast(pa.string())


def _texts(table: Table, name: str) -> list[str]:
    values = table.columns.column(name).cast(pa.string()).to_pylist()
    for row, value in enumerate(values):
        if not value:
            raise table.fault(row, name, "is empty; fill it in")
    return values


def attribute_of(table: Table, name: str) -> Attribute:
    """Attribute of a column: numbers stay numbers, text is split at `|`, lists are values."""
    column = table.columns.column(name)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64()).to_numpy().astype(np.float64)
        return Attribute(numbers=np.where(np.isfinite(numbers), numbers, np.nan))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        return Attribute(numbers=seconds.to_numpy().astype(np.float64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        rows = [[str(v) for v in row or () if v is not None] for row in column.to_pylist()]
    else:
        try:
            text = column.cast(pa.string()).to_pylist()
        except pa.ArrowNotImplementedError as exc:
            raise DataError(
                f"{table.path}, column {name!r} is of type {kind}, which is not supported; "
                "remove it or convert it to text or numbers"
            ) from exc
        rows = [(value or "").split("|") for value in text]
    return Attribute(
        values=tuple(tuple(dict.fromkeys(v.strip() for v in row if v.strip())) for row in rows)
    )
