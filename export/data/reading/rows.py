"""Rows of one or more files as columns, with the place of each row."""

import bisect
import dataclasses
import difflib
import functools
import itertools
import logging
import lzma
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shortlist.export.data.config import DATABASES, DataError
from shortlist.export.data.reading.columnar import Columnar, JsonLines, open_columnar, open_json
from shortlist.export.data.reading.database import QueryResult, run_query
from shortlist.export.data.reading.delimited import Dialect, MixedLineEndsError, Text, open_text
from shortlist.export.data.reading.faults import Faults
from shortlist.export.data.reading.locations import Location, find_files, listed, one_line
from shortlist.export.data.reading.values import MISSING, encoded

__all__ = ["Rows", "Source", "check_columns", "open_source"]

log = logging.getLogger(__name__)

_File = Text | Columnar | JsonLines | QueryResult


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Columns of a source.

    Attributes:
        name: Name of the source in messages.
        short_name: Name of the file alone.
        columns: Its columns; ids are dictionaries of texts, other columns of delimited text and
            JSON are texts.
        faults: Rows that could not be parsed; those who use the columns add others.
        quoted: Whether texts that stand for missing values are values, because they were quoted.
        notes: Lines for the user about how the source is read.
    """

    name: str
    short_name: str
    columns: pa.Table
    faults: Faults
    quoted: bool = False
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.columns.num_rows)

    def note(self, text: str) -> None:
        """Add a line about how the source is read."""
        self.notes.append(f"{self.short_name}: {text}")

    def fault(self, row: int, column: str, what: str) -> DataError:
        """Return an error for the value of a column in one row."""
        return DataError(f"{self.name}, {self.faults.place(row)}, column {column!r} {what}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files with the same columns that are read one after the other.

    Attributes:
        name: Name in messages: the path of a single file.
        short_name: Name of the file alone.
        files: Files.
        columns: Names of the columns of the first file, and those in the names of folders.
        notes: Lines for the user about how the files are read.
    """

    name: str
    short_name: str
    files: tuple[_File, ...]
    columns: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    def read(self, names: Sequence[str], *, ids: Collection[str] = (), exact: bool = False) -> Rows:
        """Read some columns.

        Args:
            names: Columns.
            ids: Those of them that are ids.
            exact: Whether texts such as `NA` are texts in columns of delimited text; otherwise
                they are missing values unless quoted.

        Raises:
            DataError: A file lacks a column, is damaged or is no text, or there are no rows.
        """
        batches: list[pa.RecordBatch] = []
        ends: list[int] = []
        rejects: list[list[tuple[int, str]]] = []
        malformed: list[npt.NDArray[np.int64]] = []
        total = 0
        for file in self.files:
            check_columns(str(file.location), [*file.columns, *file.location.partitions], names)
            own, lost = self._read(file, names, ids, exact=exact)
            batches += own
            rejects.append(lost)
            if isinstance(file, JsonLines) and _has_empty_row(own, file.location.partitions):
                malformed.append(file.malformed() + total)
            total += sum(batch.num_rows for batch in own)
            ends.append(total)
        place = functools.partial(self._places, ends, rejects)
        faults = Faults(self.name, total, place)
        for file, lost in zip(self.files, rejects, strict=True):
            if isinstance(file, Text):
                file.add_rejects(faults, lost)
        for lines in malformed:
            faults.add(" is not JSON", lines, "correct or remove it")
        if not total and not any(rejects):
            raise DataError(f"{self.name} has no rows; it needs at least one")
        table = _table(batches, names)
        quoted = all(
            isinstance(file, JsonLines) or (isinstance(file, Text) and not exact)
            for file in self.files
        )
        return Rows(
            name=self.name,
            short_name=self.short_name,
            columns=table,
            faults=faults,
            quoted=quoted,
            notes=self.notes,
        )

    def head(self, count: int) -> Rows:
        """Return the first rows of the first file as they are written, at most `count`."""
        file = self.files[0]
        if isinstance(file, Text):
            records = itertools.islice(file.records(), count)
            rows = [fields for _, _, fields in records if len(fields) == len(file.columns)]
            values = [
                pa.array([row[at] for row in rows], pa.string()) for at in range(len(file.columns))
            ]
        else:
            first = next(iter(file.batches(file.columns)), None)
            values = [] if first is None else [column[:count] for column in first.columns]
        size = len(values[0]) if values else 0
        folders = {k: v for k, v in file.location.partitions.items() if k not in file.columns}
        values += [pa.array([value] * size, pa.string()) for value in folders.values()]
        table = pa.Table.from_arrays(values, names=[*file.columns, *folders])
        faults = Faults(self.name, size, lambda rows: [f"row {row + 1}" for row in rows])
        return Rows(name=self.name, short_name=self.short_name, columns=table, faults=faults)

    def _read(
        self, file: _File, names: Sequence[str], ids: Collection[str], *, exact: bool
    ) -> tuple[list[pa.RecordBatch], list[tuple[int, str]]]:
        """Columns of a file, and lines that cannot be parsed."""
        rejects: list[tuple[int, str]] = []
        try:
            batches = self._batches(file, names, rejects, exact=exact)
            return [_with_ids(batch, ids, str(file.location)) for batch in batches], rejects
        except MixedLineEndsError:
            assert isinstance(file, Text)
            return self._read(dataclasses.replace(file, mixed=True), names, ids, exact=exact)

    def _batches(
        self, file: _File, names: Sequence[str], rejects: list[tuple[int, str]], *, exact: bool
    ) -> Iterator[pa.RecordBatch]:
        folders = file.location.partitions
        own = [name for name in names if name not in folders]
        # A file needs a column to count its rows.
        scanned = own or [name for name in file.columns if name not in folders][:1]
        try:
            if isinstance(file, Text):
                missing = ("",) if exact else MISSING
                batches = file.batches(scanned, missing=missing, rejects=rejects)
            else:
                batches = file.batches(scanned)
            for batch in batches:
                arrays = [
                    batch.column(name)
                    if name in own
                    else pa.array([folders[name]] * batch.num_rows, pa.string())
                    for name in names
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=list(names))
        except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as exc:
            raise DataError(
                f"{file.location} cannot be read ({one_line(exc)}); was it written to its end?"
            ) from exc

    def _places(
        self, ends: Sequence[int], rejects: Sequence[Sequence[tuple[int, str]]], rows: Sequence[int]
    ) -> list[str]:
        """Return the place of each row: `line 3`, after the file if there are several."""
        places: list[str] = []
        for at, group in itertools.groupby(rows, lambda row: bisect.bisect_right(ends, row)):
            file, start = self.files[at], ends[at - 1] if at else 0
            own = [row - start for row in group]
            before = f"{file.location.name}, " if len(self.files) > 1 else ""
            if isinstance(file, Text):
                lines = file.lines(own, rejects[at])
                places += [f"{before}line {line}" for line in lines]
                # Of damaged files, Python and the engine may count different records.
                places += [f"{before}row {row + 1}" for row in own[len(lines) :]]
            elif isinstance(file, JsonLines) and file.location.ending != ".json":
                places += [f"{before}line {line}" for line in file.lines(own)]
            else:
                places += [f"{before}row {row + 1}" for row in own]
        return places


def open_source(
    addresses: Sequence[str | Location],
    dialect: Dialect | None = None,
    *,
    query: str | None = None,
    limit: int | None = None,
) -> Source:
    """Find the files behind addresses, and their columns.

    Args:
        addresses: Paths, patterns, folders, URLs, and files whose form is known.
        dialect: How delimited text is to be read; None to find out.
        query: SQL for addresses of databases.
        limit: Maximum rows to take from each query; None for all.

    Raises:
        DataError: The file does not exist or cannot be read.
    """
    notes: list[str] = []
    files: list[_File] = []
    for address in addresses:
        if isinstance(address, str) and (query or _is_database(address)):
            files.append(run_query(address, query, limit=limit))
            continue
        found = find_files(address) if isinstance(address, str) else [address]
        files += [_open(location, dialect or Dialect(), notes) for location in found]
    first, more = files[0].location, len(files) - 1
    columns = dict.fromkeys([*files[0].columns, *first.partitions])
    name, short = str(first), first.name
    if more:
        name = str(addresses[0]) if len(addresses) == 1 else f"{first} and {more} more"
        short = PurePosixPath(str(addresses[0])).name
        short += f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    return Source(
        name=name,
        short_name=short,
        files=tuple(files),
        columns=tuple(columns),
        notes=list(dict.fromkeys(notes)),
    )


def _is_database(address: str) -> bool:
    scheme, separator, _ = address.partition("://")
    return bool(separator) and scheme.partition("+")[0] in DATABASES


def check_columns(name: str, header: Collection[str], wanted: Iterable[str]) -> None:
    """Raise `DataError` if a file lacks a column, or has it twice."""
    for column in wanted:
        if list(header).count(column) > 1:
            raise DataError(f"{name} has several columns {column!r}; rename all but one")
        if column not in header:
            near = difflib.get_close_matches(column, header, n=1)
            raise DataError(
                f"{name} has no column {column!r}, only {listed(list(header))}; "
                "rename it or name the right one" + (f", such as {near[0]!r}" if near else "")
            )


def _open(location: Location, dialect: Dialect, notes: list[str]) -> _File:
    try:
        if location.kind == "text":
            return open_text(location, dialect, notes)
        return open_json(location) if location.kind == "json" else open_columnar(location)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as exc:
        raise DataError(
            f"{location} cannot be read ({one_line(exc)}); was it written to its end?"
        ) from exc


def _has_empty_row(batches: Sequence[pa.RecordBatch], folders: Collection[str]) -> bool:
    """Return whether some row has no value in any column of its file, as malformed ones."""
    for batch in batches:
        columns = [batch.column(name) for name in batch.schema.names if name not in folders]
        empty = [column.is_null().to_numpy(zero_copy_only=False) for column in columns]
        if not empty or np.logical_and.reduce(empty).any():
            return True
    return False


def _with_ids(batch: pa.RecordBatch, ids: Collection[str], file: str) -> pa.RecordBatch:
    arrays = [
        encoded(column, f"{file}, column {name!r}") if name in ids else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _table(batches: Sequence[pa.RecordBatch], names: Sequence[str]) -> pa.Table:
    """Return the batches as a table; columns of several types become texts."""
    columns = {}
    for name in names:
        chunks = [batch.column(name) for batch in batches]
        kinds = {chunk.type for chunk in chunks}
        if len(kinds) > 1 and not all(map(pa.types.is_dictionary, kinds)):
            known = {kind for kind in kinds if not pa.types.is_null(kind)}
            kind = known.pop() if len(known) == 1 else pa.string()
            chunks = [chunk.cast(kind) for chunk in chunks]
        columns[name] = pa.chunked_array(chunks, None if chunks else pa.string())
    return pa.table(columns)
