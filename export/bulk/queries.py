"""Who is asked: all users of a servable, those of a file, or queries with their histories."""

import hashlib
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.clients.cli.histories import QUERY_KEYS, checked_row, feature_texts
from shortlist.clients.contract import UNKNOWN_AGE
from shortlist.clients.errors import ShortlistError
from shortlist.export.bulk.engine import (
    AGES,
    CANDIDATES,
    FEATURES,
    HISTORY,
    USERS,
    WEIGHTS,
    BulkServable,
)
from shortlist.export.data.config import DataConfig, DataError
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.reading.columnar import JsonLines
from shortlist.export.data.reading.roles import Role, described, find_column, no_column
from shortlist.export.data.reading.rows import Source, open_source
from shortlist.export.data.reading.values import ids_of_column
from shortlist.export.data.sources.tabular import dialect_of

__all__ = [
    "ALL",
    "BulkQueries",
    "example_query",
    "fingerprint",
    "query_rows",
    "read_candidates",
    "read_users",
    "table_of_queries",
    "with_histories",
]

ALL: Final = "all"  # instead of a file
_LINES: Final = 10_000  # in memory as Python objects
_LISTED: Final = pa.list_(pa.dictionary(pa.int32(), pa.string()))


@dataclass(frozen=True, kw_only=True, eq=False)
class BulkQueries:
    """Queries in memory: some 20 bytes for a user, and 8 or 12 for an event of a history.

    Attributes:
        table: A row for each query, in columns as `BulkServable.answer` takes them.
        notes: Lines for the user about how they were read.
    """

    table: pa.Table
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.table.num_rows)


def read_users(users: str, servable: BulkServable, config: DataConfig) -> BulkQueries:
    """Return a query for each user.

    Args:
        users: `all`, or a file: a table with a column of user ids, or JSON lines of queries as
            `shortlist query --history-file` takes them.
        servable: Servable whose users are `all`.
        config: Names the column, and how to read the file.

    Raises:
        DataError: The file is missing, empty or faulty.
        ShortlistError: A query is faulty, or the servable does not know its users.
    """
    if users == ALL:
        return BulkQueries(table=_table(USERS, servable.users()))
    source = open_source([users], dialect_of(config))
    (file, *_) = source.files
    if isinstance(file, JsonLines) and set(source.columns) <= QUERY_KEYS:
        with file.location.open() as stream:
            rows = query_rows(_lines(stream, str(file.location)))
            return BulkQueries(table=table_of_queries(rows, source.columns))
    return _read_ids(source, "users", USERS, config.user_column, config)


def read_candidates(candidates: str, servable: BulkServable, config: DataConfig) -> BulkQueries:
    """Return a query for each candidate, to find similar ones.

    Args:
        candidates: `all`, or a file with a column of candidate ids.
        servable: Servable whose candidates are `all`.
        config: Names the column, and how to read the file.

    Raises:
        DataError: The file is missing, empty or faulty.
        ShortlistError: The servable does not know its candidates.
    """
    if candidates == ALL:
        return BulkQueries(table=_table(CANDIDATES, servable.candidates()))
    source = open_source([candidates], dialect_of(config))
    return _read_ids(source, "candidates", CANDIDATES, config.candidate_column, config)


def _table(field: pa.Field, ids: pa.Array) -> pa.Table:
    return pa.Table.from_arrays([ids], schema=pa.schema([field]))


def _read_ids(
    source: Source, role: Role, field: pa.Field, named: str, config: DataConfig
) -> BulkQueries:
    """Return the distinct ids of a column, in the order of their first row."""
    default = {"users": DataConfig.user_column, "candidates": DataConfig.candidate_column}[role]
    column = find_column(role, source.columns, named, default=default)
    if column is None:
        raise no_column(role, source.name, source.columns)
    rows = source.read([column], ids=[column])
    ids = ids_of_column(rows, column)
    good = rows.faults.check(config.skip_bad_rows)
    codes, first = np.unique(ids.codes[good], return_index=True)
    order = codes[np.argsort(first)]
    repeats = int(good.sum()) - len(order)
    notes = [f"{source.short_name}: {described(source.columns, {role: column}, ())}"]
    notes += [*source.notes, *rows.notes]
    if repeats:
        notes.append(
            f"{source.short_name}: rows that repeat an id: {repeats:,}; each is asked once"
        )
    distinct = pa.array(ids.values, pa.string()).take(pa.array(order))
    return BulkQueries(table=_table(field, distinct), notes=tuple(dict.fromkeys(notes)))


# --- queries with histories ---------------------------------------------------------------


def with_histories(queries: BulkQueries, dataset: Dataset, now: float | None) -> BulkQueries:
    """Return the same users with their events, oldest first.

    Args:
        queries: Users, without histories of their own.
        dataset: Interactions, also of others.
        now: Time from which ages count, in seconds since the epoch; None for that of the newest
            event. Without times in the data, events have no ages.

    Raises:
        DataError: An event is later than `now`.
        ShortlistError: The queries have histories of their own.
    """
    if HISTORY.name in queries.table.column_names:
        raise ShortlistError("--users names histories itself; leave out --history")
    times = dataset.timestamps
    if times is not None and now is not None and times.max() > now:
        late = int(np.count_nonzero(times > now))
        raise DataError(
            f"{dataset.name}: events later than --now {now:.0f}: {late:,}, the last at "
            f"{int(times.max())}; give a later time"
        )
    events = Histories.of_users(dataset, np.arange(dataset.num_interactions))
    owners = pa.array(dataset.user_ids, pa.string())
    users = queries.table.column(USERS.name)
    rows = pc.index_in(users, owners).fill_null(len(owners)).to_numpy()
    starts = np.append(events.events.starts, events.events.starts[-1])
    chosen = events.between(starts[rows], starts[rows + 1])
    offsets = pa.array(chosen.events.starts.astype(np.int32))
    ids = pa.DictionaryArray.from_arrays(
        pa.array(chosen.events.columns), pa.array(dataset.candidate_ids, pa.string())
    )
    table = queries.table.append_column(
        pa.field(HISTORY.name, _LISTED), pa.ListArray.from_arrays(offsets, ids)
    )
    if chosen.times is not None and times is not None:
        ages = ((times.max() if now is None else now) - chosen.times).astype(np.float32)
        table = table.append_column(AGES, pa.ListArray.from_arrays(offsets, pa.array(ages)))
    if chosen.events.weights is not None:
        weights = pa.array(chosen.events.weights)
        table = table.append_column(WEIGHTS, pa.ListArray.from_arrays(offsets, weights))
    asked = int(np.count_nonzero(rows < len(owners)))
    notes = [*queries.notes, *dataset.notes]
    notes.append(
        f"{dataset.name}: {len(chosen.events.columns):,} events of {asked:,} of the "
        f"{len(queries):,} users"
    )
    if others := len(owners) - asked:
        notes.append(f"{dataset.name}: users that are not in --users, so not asked: {others:,}")
    return BulkQueries(table=table, notes=tuple(notes))


def query_rows(lines: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the query in each JSON line that is not blank, with a value for every column.

    Args:
        lines: Place of the line for messages, and its text.

    Raises:
        ShortlistError: A line is not a query.
    """
    for where, text in lines:
        if not text.strip():
            continue
        row = checked_row(text, where)
        history = row.get("history", [])
        ages = row.get("ages", [None] * len(history))
        yield {
            USERS.name: row.get("user_id", ""),
            HISTORY.name: history,
            AGES.name: [UNKNOWN_AGE if age is None else age for age in ages],
            WEIGHTS.name: row.get("weights", [1.0] * len(history)),
            FEATURES.name: [*feature_texts(row.get("features", {})).items()],
        }


def table_of_queries(rows: Iterator[dict[str, Any]], columns: Collection[str]) -> pa.Table:
    """Return rows of `query_rows` as a table with the user ids and the named columns."""
    keys = {USERS.name, *columns}
    if keys & {AGES.name, WEIGHTS.name}:
        keys.add(HISTORY.name)
    fields = [field for field in (USERS, HISTORY, AGES, WEIGHTS, FEATURES) if field.name in keys]
    parts = [pa.Table.from_pylist([], pa.schema(fields))]
    while chunk := list(itertools.islice(rows, _LINES)):
        parts.append(pa.Table.from_pylist(chunk, pa.schema(fields)))
    return pa.concat_tables(parts)


def example_query(field: pa.Field, *, queries: bool) -> pa.Table:
    """Return a query without user id, with the columns of JSON lines if `queries`."""
    if queries:
        return table_of_queries(query_rows([("", "{}")]), QUERY_KEYS)
    return _table(field, pa.array([""]))


def _lines(stream: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(stream, 1):
        where = f"--users {name}, line {number}"
        try:
            yield where, line.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise ShortlistError(f"{where}: not UTF-8 ({exc})") from exc


def fingerprint(queries: BulkQueries) -> str:
    """Return a digest of the queries in their order, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)

    class Sink:
        closed = False

        def write(self, data: bytes) -> int:
            digest.update(data)
            return len(data)

        def flush(self) -> None:
            """Do nothing; everything is hashed at once."""

        def close(self) -> None:
            """Do nothing; there is nothing to free."""

    with pa.ipc.new_stream(pa.PythonFile(Sink(), "w"), queries.table.schema) as writer:
        writer.write_table(queries.table)
    return digest.hexdigest()
