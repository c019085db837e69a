"""Reads the result of a query from a database: DuckDB, or any that SQLAlchemy knows."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from shortlist.export.data.config import DATABASES, DataError, without_password
from shortlist.export.data.reading.locations import Location, one_line

__all__ = ["QueryResult", "run_query"]

_BATCH = 1 << 16  # rows
_DUCKDB = "duckdb:///"
_SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryResult:
    """Rows that a query returned.

    Attributes:
        location: Address without password.
        parts: The rows; a column may have another type in each part.
    """

    location: Location
    parts: Sequence[pa.Table]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.parts[0].column_names)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns."""
        for part in self.parts:
            yield from part.select(list(names)).to_batches()


def run_query(address: str, query: str | None, *, limit: int | None = None) -> QueryResult:
    """Return the rows of a query.

    Args:
        address: Address for SQLAlchemy, such as `sqlite:///shop.db`, or `duckdb:///shop.duckdb`.
        query: SQL.
        limit: Maximum rows to take; None for all.

    Raises:
        DataError: There is no query, or the database does not answer it.
    """
    shown = without_password(address)
    if not query:
        raise DataError(f"{shown} needs a query: --query 'SELECT user_id, item_id FROM clicks'")
    if address.partition("://")[0].partition("+")[0] not in DATABASES:
        raise DataError(
            f"--query needs a database as --data, such as sqlite:///shop.db, got {shown!r}"
        )
    for scheme in (_DUCKDB, _SQLITE):
        path = Path(address.removeprefix(scheme)).expanduser()
        if address.startswith(scheme) and not path.is_file():
            raise DataError(f"no such file: {path}; check the address {shown}")
    try:
        ask = _duckdb if address.startswith(_DUCKDB) else _other
        parts = ask(address, query, limit)
    except (duckdb.Error, pa.ArrowException) as exc:
        raise DataError(
            f"{shown}: {one_line(exc).partition(' LINE ')[0]}; correct --query"
        ) from exc
    return QueryResult(location=Location(address=shown, kind="database"), parts=parts)


def _duckdb(address: str, query: str, limit: int | None) -> list[pa.Table]:
    options = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    path = str(Path(address.removeprefix(_DUCKDB)).expanduser())
    with duckdb.connect(path, read_only=True, config=options) as connection:
        relation = connection.sql(query)
        if relation is None:
            raise DataError(f"{address}: --query returns no rows; give a SELECT")
        return [(relation if limit is None else relation.limit(limit)).to_arrow_table()]


def _other(address: str, query: str, limit: int | None) -> list[pa.Table]:
    try:
        import sqlalchemy
    except ImportError as exc:
        raise DataError("SQLAlchemy is not installed; install shortlist[sql]") from exc
    shown = without_password(address)
    try:
        engine = sqlalchemy.create_engine(address)
    except (ImportError, sqlalchemy.exc.ArgumentError) as exc:
        raise DataError(
            f"{shown} has no driver here ({one_line(exc)}); install the package it names"
        ) from exc
    try:
        with engine.connect().execution_options(yield_per=limit or _BATCH) as connection:
            result = connection.execute(sqlalchemy.text(query))
            if not result.returns_rows:
                raise DataError(f"{shown}: --query returns no rows; give a SELECT")
            names = list(result.keys())
            batches = result.partitions() if limit is None else [[*itertools.islice(result, limit)]]
            parts = [_table(names, rows) for rows in batches]
    except sqlalchemy.exc.SQLAlchemyError as exc:
        reason = one_line(exc).partition(" [SQL")[0].partition(" (Background")[0]
        raise DataError(f"{shown}: {reason}; check the address and --query") from exc
    finally:
        engine.dispose()
    return parts or [_table(names, [])]


def _table(names: Sequence[str], rows: Sequence[Any]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.Table.from_arrays(list(map(_array, columns)), names=list(names))


def _array(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # SQLite's columns may hold several types
        return pa.array([None if value is None else str(value) for value in values])
