"""Reads delimited text fast, and names the faulty line in errors."""

import csv
import difflib
import gzip
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.csv

from shortlist.export.data.config import DataError

__all__ = [
    "CATEGORY",
    "ID",
    "NUMBER",
    "TIME",
    "Delimited",
    "check_columns",
    "check_file",
    "one_line",
]

# Ids repeat, so a dictionary stores them in four bytes each.
ID = pa.dictionary(pa.int32(), pa.string())
CATEGORY = pa.dictionary(pa.int32(), pa.string())  # another object: may be empty
NUMBER = pa.float32()
TIME = pa.int64()

_DESCRIPTIONS = {NUMBER: "a number", TIME: "a whole number of seconds since 1970"}
_NULLS = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]


@dataclass(frozen=True, kw_only=True)
class Delimited:
    """A text file with one row per line.

    Attributes:
        path: Path of the file; `.gz` is decompressed.
        delimiter: A character, or `::`.
        names: Names of the columns; None if they are in the first line.
        encoding: Encoding of the text.
        quoted: Fields may be in double quotes and contain delimiters or line ends.
    """

    path: Path
    delimiter: str = ","
    names: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    quoted: bool = True

    def header(self) -> tuple[str, ...]:
        """Names of the columns.

        Raises:
            DataError: The file is empty or not in its encoding.
        """
        check_file(self.path)
        if self.names is not None:
            return self.names
        for _, fields in self.rows(header=True):
            return tuple(name.strip() for name in fields)
        raise DataError(f"{self.path} is empty; its first line must name the columns")

    def rows(self, *, header: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Yield the last line number (from 1) and the fields of each row, but no blank lines.

        Slower than `read`.

        Raises:
            DataError: The text is not in its encoding.
        """
        skip = self.names is None and not header
        with self._open() as stream:
            try:
                for line, fields in self._split(stream):
                    if not fields:
                        continue
                    if skip:
                        skip = False
                        continue
                    yield line, fields
            except UnicodeDecodeError:
                raise DataError(self._undecodable()) from None
            except csv.Error as exc:
                raise DataError(
                    f"{self.path} is not delimited text ({exc}); save it again as plain text"
                ) from exc

    def read(
        self,
        types: Mapping[str, pa.DataType | None],
        *,
        optional: Collection[str] = (),
    ) -> pa.Table:
        """Read some columns.

        Args:
            types: Type of each column to read; None to infer it.
            optional: Columns that may have missing values.

        Raises:
            DataError: A column is missing, a row cannot be parsed, or there are no rows.
        """
        header = self.header()
        check_columns(self.path, header, types)
        try:
            table = self._read_fast(header, types)
        except (pa.ArrowInvalid, UnicodeDecodeError) as exc:
            self._diagnose(header, types, optional)
            if None not in types.values():
                raise DataError(f"{self.path}: {one_line(exc)}; correct the file") from exc
            # The type inferred from the first rows does not fit later ones: read text instead.
            text = {name: kind or pa.string() for name, kind in types.items()}
            return self.read(text, optional=optional)
        if table.num_rows == 0:
            raise DataError(f"{self.path} has no rows; it needs at least one")
        for name in types:
            if name in optional:
                continue
            column = table.column(name)
            if column.null_count or (types[name] is ID and _has_empty(column)):
                self._diagnose(header, types, optional)
                raise DataError(f"{self.path}, column {name!r} has empty fields; fill them in")
        return table

    def line_of(self, row: int) -> int:
        """Line number (from 1) of a row (from 0)."""
        for number, (line, _) in enumerate(self.rows()):
            if number == row:
                return line
        raise IndexError(f"{self.path} has no row {row}")

    def _read_fast(
        self, header: Sequence[str], types: Mapping[str, pa.DataType | None]
    ) -> pa.Table:
        names, delimiter = list(header), self.delimiter
        if delimiter == "::":
            # PyArrow splits at ":" and so finds an empty field between the two colons.
            names = [part for i, name in enumerate(names) for part in (name, f"::{i}")][:-1]
            delimiter = ":"
        return pyarrow.csv.read_csv(
            self.path,
            read_options=pyarrow.csv.ReadOptions(
                column_names=names,
                skip_rows=0 if self.names is not None else 1,
                encoding=self.encoding,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if self.quoted else False,
                newlines_in_values=self.quoted,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(types),
                column_types={name: kind for name, kind in types.items() if kind is not None},
                null_values=_NULLS,
            ),
        ).unify_dictionaries()

    def _diagnose(
        self,
        header: Sequence[str],
        types: Mapping[str, pa.DataType | None],
        optional: Collection[str],
    ) -> None:
        """Raise the error of the first line that cannot be read, if any."""
        required = [
            (header.index(name), name, kind) for name, kind in types.items() if name not in optional
        ]
        for line, fields in self.rows():
            if len(fields) != len(header):
                raise DataError(
                    f"{self.path}, line {line} has {len(fields)} fields instead of {len(header)} "
                    f"({', '.join(header)}); correct or remove it"
                )
            for at, name, kind in required:
                value = fields[at]
                if not value or (kind is not ID and value in _NULLS):
                    raise DataError(
                        f"{self.path}, line {line}, column {name!r} is empty; "
                        "fill it in or remove the line"
                    )
                if kind in _DESCRIPTIONS and not _parses(value, kind):
                    raise DataError(
                        f"{self.path}, line {line}, column {name!r}: {value!r} is not "
                        f"{_DESCRIPTIONS[kind]}; correct or remove it"
                    )

    def _open(self) -> TextIO:
        # The byte order mark of spreadsheets is not part of the first column's name.
        encoding = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        if _zipped(self.path):
            return gzip.open(self.path, "rt", encoding=encoding, newline="")
        return self.path.open(encoding=encoding, newline="")

    def _split(self, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
        if self.quoted:
            reader = csv.reader(stream, delimiter=self.delimiter)
            for fields in reader:
                yield reader.line_num, fields
            return
        for line, text in enumerate(stream, start=1):
            text = text.rstrip("\r\n")
            yield line, text.split(self.delimiter) if text else []

    def _undecodable(self) -> str:
        with gzip.open(self.path) if _zipped(self.path) else self.path.open("rb") as stream:
            for number, text in enumerate(stream, start=1):
                try:
                    text.decode(self.encoding)
                except UnicodeDecodeError as exc:
                    return (
                        f"{self.path}, line {number} is not {self.encoding.upper()} "
                        f"(byte {text[exc.start]:#04x} at {exc.start + 1}); "
                        f"convert it: iconv -f latin1 -t {self.encoding} FILE > CONVERTED"
                    )
        return f"{self.path} is not {self.encoding.upper()}; convert it"


def check_file(path: Path) -> None:
    """Check that a file can be read and is not empty.

    Raises:
        DataError: The file is missing, a folder, empty or unreadable.
    """
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError:
        raise DataError(f"no such file: {path}; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; give a file in it") from None
    except OSError as exc:
        raise DataError(f"{path} cannot be read ({exc.strerror}); check its permissions") from exc
    if empty:
        raise DataError(f"{path} is empty; was its download interrupted?")


def check_columns(path: Path, header: Collection[str], names: Iterable[str]) -> None:
    """Raise `DataError` if a file lacks a column."""
    for name in names:
        if name not in header:
            near = difflib.get_close_matches(name, header, n=1)
            raise DataError(
                f"{path} has no column {name!r}, only {', '.join(header)}; "
                "rename it or name the right one" + (f", such as {near[0]!r}" if near else "")
            )


def one_line(exc: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(exc).split())


def _has_empty(column: pa.ChunkedArray) -> bool:
    return column.num_chunks > 0 and "" in column.chunk(0).dictionary.to_pylist()


def _zipped(path: Path) -> bool:
    return path.suffix == ".gz"


def _parses(value: str, kind: pa.DataType) -> bool:
    try:
        int(value) if kind is TIME else float(value)
    except ValueError:
        return False
    return True
