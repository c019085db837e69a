"""Reads files that know their columns: Parquet, Arrow and Feather, and JSON lines."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet

from shortlist.export.data.config import DataError
from shortlist.export.data.reading.engine import connect, literal
from shortlist.export.data.reading.locations import Location, one_line

__all__ = ["Columnar", "JsonLines", "open_columnar", "open_json"]

_BATCH = 1 << 18  # rows
_FEATHER_1 = b"FEA1"  # first bytes of a file of its first version
_FORMS = {"parquet": "a Parquet file", "arrow": "an Arrow or Feather file", "json": "JSON"}


@dataclass(frozen=True, kw_only=True)
class Columnar:
    """A Parquet, Arrow or Feather file.

    Attributes:
        location: File.
        columns: Names of its columns.
    """

    location: Location
    columns: tuple[str, ...]

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns.

        Raises:
            DataError: The file is damaged.
        """
        with _reading(self.location), _local(self.location) as path:
            if self.location.kind == "parquet":
                with pyarrow.parquet.ParquetFile(path) as file:
                    for batch in file.iter_batches(_BATCH, columns=list(names)):
                        yield _valid(batch.select(list(names)))
            else:
                table = pyarrow.feather.read_table(path, columns=list(names), memory_map=False)
                yield from map(_valid, table.to_batches(_BATCH))


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """A file with one JSON object per line, or with an array of objects.

    Attributes:
        location: File.
        types: Type of each column by name, for the engine: text, or a list.
    """

    location: Location
    types: dict[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.types)

    def batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns, with nothing but missing values for lines that are not JSON.

        Raises:
            DataError: The file is not JSON at all.
        """
        columns = ", ".join(f"{literal(name)}: {literal(self.types[name])}" for name in names)
        with _reading(self.location), _local(self.location) as path, connect() as engine:
            scan = engine.sql(
                f"SELECT * FROM read_json({literal(path)}, columns={{{columns}}}, "
                f"{_json_options(self.location)})"
            )
            for batch in scan.to_arrow_reader(_BATCH):
                yield pa.RecordBatch.from_arrays(batch.columns, names=list(names))

    def malformed(self) -> np.ndarray:
        """Return the rows (from 0) that are not JSON."""
        with _reading(self.location), _local(self.location) as path, connect() as engine:
            rows = engine.execute(
                "SELECT row FROM (SELECT json, row_number() OVER () - 1 AS row FROM "
                f"read_json_objects({literal(path)}, {_json_options(self.location)})) "
                "WHERE json IS NULL ORDER BY row"
            ).fetchall()
        return np.asarray([row for (row,) in rows], np.int64)

    def lines(self, rows: Sequence[int]) -> list[int]:
        """Return the line (from 1) of rows (from 0, ascending)."""
        wanted, lines, row = set(rows), list[int](), 0
        with self.location.open() as stream:
            for line, text in enumerate(stream, start=1):
                if not text.strip():
                    continue
                if row in wanted:
                    lines.append(line)
                    if len(lines) == len(rows):
                        break
                row += 1
        return lines


def open_columnar(location: Location) -> Columnar:
    """Read the names of the columns.

    Raises:
        DataError: The file is damaged or of another form.
    """
    with _reading(location), _local(location) as path:
        if location.kind == "parquet":
            names = pyarrow.parquet.read_schema(path).names
        else:
            with pa.memory_map(path) as file:
                if file.read(len(_FEATHER_1)) == _FEATHER_1:  # does not know its schema apart
                    names = pyarrow.feather.read_table(path).schema.names
                else:
                    names = pa.ipc.open_file(file).schema.names
    return Columnar(location=location, columns=tuple(names))


def open_json(location: Location) -> JsonLines:
    """Read the names of the columns from all objects.

    Raises:
        DataError: The file is not JSON.
    """
    with _reading(location), _local(location) as path, connect() as engine:
        described = engine.execute(
            f"DESCRIBE SELECT * FROM read_json({literal(path)}, sample_size=-1, maximum_depth=2, "
            f"{_json_options(location)})"
        ).fetchall()
    # Texts and numbers keep their spelling.
    types = {
        row[0]: ("DOUBLE[]" if row[1] in ("DOUBLE[]", "BIGINT[]") else "VARCHAR[]")
        if row[1].endswith("[]")
        else "VARCHAR"
        for row in described
    }
    if list(types) == ["json"]:
        raise DataError(f"{location} holds no JSON objects; write one object per line")
    return JsonLines(location=location, types=types)


def _valid(batch: pa.RecordBatch) -> pa.RecordBatch:
    # Arrow trusts what it maps: damaged offsets would crash the process later.
    batch.validate(full=True)
    return batch


def _json_options(location: Location) -> str:
    form = "auto" if location.ending == ".json" else "newline_delimited"
    return f"format={literal(form)}, ignore_errors=true" if form != "auto" else "format='auto'"


@contextlib.contextmanager
def _reading(location: Location) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, duckdb.Error, EOFError, ValueError) as exc:
        if isinstance(exc, DataError):
            raise
        text = one_line(exc).partition(" LINE 1:")[0]
        raise DataError(
            f"{location} is not {_FORMS[location.kind]} ({text}); was it written to its end?"
        ) from exc


@contextlib.contextmanager
def _local(location: Location) -> Iterator[str]:
    """A path with the decompressed content."""
    path = Path(location.address).expanduser()
    if location.compression is None and path.is_file():
        yield str(path)
        return
    with tempfile.NamedTemporaryFile("wb", prefix="shortlist-", suffix=location.ending) as copy:
        with location.open() as stream:
            shutil.copyfileobj(stream, copy)
        copy.flush()
        yield copy.name
