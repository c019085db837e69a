"""Reads delimited text: finds delimiter and encoding, and names the lines it cannot parse."""

import codecs
import contextlib
import csv
import io
import itertools
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa

from shortlist.export.data.config import DataError
from shortlist.export.data.reading.engine import connect, literal
from shortlist.export.data.reading.faults import SHOWN, Faults
from shortlist.export.data.reading.locations import Location, one_line

__all__ = ["DELIMITERS", "Dialect", "MixedLineEndsError", "Text", "open_text"]

DELIMITERS = (",", "\t", ";", "|")
_SAMPLE = 1 << 18  # bytes that tell delimiter and encoding
_SAMPLE_ROWS = 200
_CHUNK = 1 << 20  # bytes that are converted at once
_MAX_LINE = 1 << 22  # bytes
_SPANNED = 3  # lines in a value that look like rows, which no text does by chance
_MAX_FIELD = 1 << 26  # characters, in Python; the engine has refused longer lines
_BATCH = 1 << 18  # rows
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATOR = re.compile(r'sep=([^\w\s"]|\t)[\r\n]', re.IGNORECASE)  # as Excel writes it
# Read by the engine itself; others are converted first.
_NATIVE = ("utf-8", "utf-8-sig")
_NATIVE_COMPRESSIONS = (None, "gzip", "zstd")
_REJECTS = """
    SELECT CAST(line AS BIGINT), any_value(CASE error_type
        WHEN 'UNQUOTED VALUE' THEN
            if(contains(trim(csv_line, chr(10) || chr(13)), chr(10)), 'open', 'quote')
        WHEN 'INVALID ENCODING' THEN 'encoding'
        WHEN 'LINE SIZE OVER MAXIMUM' THEN 'size'
        ELSE regexp_extract(error_message, 'Found: ([0-9]+)', 1) END)
    FROM reject_errors GROUP BY line ORDER BY line
"""


class MixedLineEndsError(Exception):
    """The engine does not read a text whose lines end differently."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a text is to be read.

    Attributes:
        delimiter: Delimiter of one or more characters; None to find it.
        encoding: Encoding; None to find it.
        names: Names of the columns; None if they are in the first line.
        quoted: Fields may be in double quotes and contain delimiters or line ends.
    """

    delimiter: str | None = None
    encoding: str | None = None
    names: tuple[str, ...] | None = None
    quoted: bool = True


@dataclass(frozen=True, kw_only=True)
class Text:
    """A delimited text.

    Attributes:
        location: File.
        delimiter: Delimiter of its fields.
        encoding: Encoding of the text.
        columns: Names of the columns, without blanks around them.
        header: Whether the first line of the table holds them.
        skipped: Number of lines before the table: blank ones, and one that names the delimiter.
        marked: Whether the first line names the delimiter, such as `sep=;`.
        quoted: Fields may be in double quotes.
        mixed: Whether its lines end differently, so that the engine gets a converted copy.
    """

    location: Location
    delimiter: str
    encoding: str
    columns: tuple[str, ...]
    header: bool
    quoted: bool
    skipped: int = 0
    marked: bool = False
    mixed: bool = False

    def batches(
        self, names: Sequence[str], *, missing: Sequence[str], rejects: list[tuple[int, str]]
    ) -> Iterator[pa.RecordBatch]:
        """Yield some columns as text.

        Args:
            names: Columns to read.
            missing: Unquoted texts that are missing values.
            rejects: List that gets number and fault of each row that cannot be parsed; numbers
                count from 1 and include blank lines and all before the table.

        Raises:
            DataError: The file is not text of this form at all.
            MixedLineEndsError: Its lines end differently, and `mixed` is not set.
        """
        at = [self.columns.index(name) for name in names]
        with self._native() as path, connect() as engine:
            try:
                scan = engine.sql(
                    f"SELECT {', '.join(f'c{i}' for i in at)} FROM read_csv({literal(path)}, "
                    f"{self._options(missing)})"
                )
                rows = 0
                for batch in scan.to_arrow_reader(_BATCH):
                    rows += batch.num_rows
                    yield pa.RecordBatch.from_arrays(batch.columns, names=list(names))
                rejects += engine.execute(_REJECTS).fetchall()
                records = rows + len(rejects) + int(self.header) + self.skipped
                if self.quoted and self._num_lines(path) > records:
                    self._check_spans(engine, path, rejects)
            except duckdb.Error as exc:
                text = one_line(exc).partition(" Possible ")[0]
                if "invalid state" in text and not self.mixed:
                    raise MixedLineEndsError from exc
                raise DataError(
                    f"{self.location} cannot be read ({text[:300]}); save it again as plain text"
                ) from exc

    def add_rejects(self, faults: Faults, rejects: Sequence[tuple[int, str]]) -> None:
        """Add rows that cannot be parsed to the faults.

        Raises:
            DataError: A quote is not closed, so that the rest of the file cannot be told apart.
        """
        kinds: dict[str, list[int]] = {}
        for number, kind in rejects:
            kinds.setdefault(kind, []).append(number)
        shown = sorted({number for numbers in kinds.values() for number in numbers[:SHOWN]})
        line_of = self._lines_of_numbers(shown)
        if "open" in kinds:
            raise DataError(
                f"{self.location}, line {line_of[kinds['open'][0]]}: a quote opens there and is "
                "not closed before the line ends; close or remove it, or double it if it belongs "
                "to the text"
            )
        before = "" if faults.name == str(self.location) else f"{self.location.name}, "
        for kind, numbers in sorted(kinds.items(), key=lambda item: item[1][0]):
            what, remedy = self._reject(kind, line_of[numbers[0]])
            places = [f"{before}line {line_of[number]}" for number in numbers[:SHOWN]]
            faults.add_unread(what, places, len(numbers), remedy)

    def lines(self, rows: Sequence[int], rejects: Sequence[tuple[int, str]]) -> list[int]:
        """Return the line (from 1) of rows (from 0, ascending) among those that were parsed."""
        lost = {number for number, _ in rejects}
        parsed = (line for number, line, _ in self.records() if number not in lost)
        return _picked(parsed, rows)

    def _lines_of_numbers(self, numbers: Sequence[int]) -> dict[int, int]:
        """Return the line of each of some records, by their numbers."""
        wanted = set(numbers)
        lines = ((number, line) for number, line, _ in self.records() if number in wanted)
        # Of damaged files, Python and the engine may count different records.
        return {number: number for number in numbers} | dict(itertools.islice(lines, len(wanted)))

    def records(self) -> Iterator[tuple[int, int, list[str]]]:
        """Yield number, first line and fields of each row, as `_split`; slow.

        Bytes that are not in the encoding are replaced.
        """
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
        with _decoded(self.location, self.encoding, errors="replace") as stream:
            records = _split(stream, self.delimiter, quoted=self.quoted)
            yield from itertools.islice(records, int(self.header) + int(self.marked), None)

    def _num_lines(self, path: str) -> int:
        """Return the number of line ends in the text that the engine reads, at least."""
        counts = {b"\n": 0, b"\r": 0}
        with self.location.open() if self._is_native() else open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                for end in counts:
                    counts[end] += chunk.count(end)
        return max(counts.values())

    def _check_spans(
        self, engine: duckdb.DuckDBPyConnection, path: str, rejects: Sequence[tuple[int, str]]
    ) -> None:
        """Raise `DataError` if a value in quotes holds whole rows, as after a stray quote."""
        delimiter, more = re.escape(self.delimiter), len(self.columns) - 1
        end, cell = "(?:\\r\\n?|\\n)", f"[^\\r\\n{delimiter}]*"
        pattern = literal(f"(?:{end}(?:{cell}{delimiter}){{{more}}}{cell}){{{_SPANNED}}}{end}")
        tests = (f"regexp_matches(c{at}, {pattern})" for at in range(len(self.columns)))
        found = engine.execute(
            f"SELECT row FROM (SELECT *, row_number() OVER () - 1 AS row FROM "
            f"read_csv({literal(path)}, {self._options([''])})) WHERE {' OR '.join(tests)} LIMIT 1"
        ).fetchone()
        if found is not None:
            raise DataError(
                f"{self.location}, line {self.lines([found[0]], rejects)[0]}: a value in quotes "
                "that begins there holds whole rows; was a quote not closed? Close or remove it, "
                "or double it if it belongs to the text"
            )

    def _options(self, missing: Sequence[str]) -> str:
        quote = '"' if self.quoted else ""
        columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(self.columns)))
        options = {
            "auto_detect": False,
            "header": self.header,
            "skip": self.skipped,
            "delim": self.delimiter,
            "quote": quote,
            "escape": quote,
            "nullstr": list(missing),
            "allow_quoted_nulls": False,
            "strict_mode": True,
            "store_rejects": True,
            "max_line_size": _MAX_LINE,
            "compression": {"gzip": "gzip", "zstd": "zstd"}.get(
                self.location.compression or "", "none"
            )
            if self._is_native()
            else "none",
        }
        given = ", ".join(f"{name}={literal(value)}" for name, value in options.items())
        return f"columns={{{columns}}}, {given}"

    def _is_native(self) -> bool:
        return (
            not self.mixed
            and self.encoding in _NATIVE
            and self.location.compression in _NATIVE_COMPRESSIONS
            and Path(self.location.address).expanduser().is_file()
            and not any(c in self.location.address for c in "*?[")
        )

    @contextlib.contextmanager
    def _native(self) -> Iterator[str]:
        """A path that the engine reads: the file, or a copy of it as plain UTF-8."""
        if self._is_native():
            yield str(Path(self.location.address).expanduser())
            return
        with tempfile.NamedTemporaryFile("wb", prefix="shortlist-", suffix=".csv") as copy:
            self._convert(copy)
            copy.flush()
            yield copy.name

    def _convert(self, copy: IO[bytes]) -> None:
        """Write the content as UTF-8; bytes that are not UTF-8 are left to the engine."""
        errors = "surrogateescape" if self.encoding in _NATIVE else "strict"
        plain = codecs.getincrementaldecoder(self.encoding)(errors)
        decoder = io.IncrementalNewlineDecoder(plain, translate=True) if self.mixed else plain
        before = 0
        with self.location.open() as stream:
            while True:
                chunk = stream.read(_CHUNK)
                try:
                    text = decoder.decode(chunk, final=not chunk)
                except UnicodeDecodeError as exc:
                    line = before + exc.object[: exc.start].count(b"\n") + 1
                    raise DataError(
                        f"{self.location}, line {line} is not {self.encoding.upper()} (byte "
                        f"{exc.object[exc.start]:#04x}); name its encoding with --encoding"
                    ) from exc
                before += chunk.count(b"\n")
                copy.write(text.encode("utf-8", errors if errors != "strict" else "replace"))
                if not chunk:
                    return

    def _reject(self, kind: str, line: int) -> tuple[str, str]:
        """What is wrong with a kind of rows, and the remedy."""
        if kind == "quote":
            return " has text after a closing quote", "double quotes that belong to the text"
        if kind == "size":
            return f" is longer than {_MAX_LINE >> 20} MiB", "is a quote not closed? Correct it"
        if kind == "encoding":
            byte = _odd_byte(self.location, line)
            return (
                f" is not UTF-8{byte}",
                "convert it, or name the encoding of the whole file: --encoding windows-1252",
            )
        named = f" ({', '.join(self.columns)})" if len(self.columns) <= 12 else ""
        return (
            f" has {kind} fields instead of {len(self.columns)}{named}",
            "correct or remove it",
        )


def open_text(location: Location, dialect: Dialect, notes: list[str]) -> Text:
    """Find out how a text is to be read, and add what is unusual to the notes.

    Raises:
        DataError: It is empty, holds bytes that are no text, or mixes encodings.
    """
    with location.open() as stream:
        sample = stream.read(_SAMPLE)
        whole = not stream.read(1)
    if not sample.strip():
        raise DataError(f"{location} is empty; its first line must name the columns")
    encoding = dialect.encoding or _encoding(location, sample, notes, whole=whole)
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise DataError(
            f"unknown encoding {encoding!r}; give one such as utf-8, utf-16 or windows-1252"
        ) from None
    if encoding == "utf-8" and sample.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample, final=whole)
    mark = _SEPARATOR.match(text)
    delimiter = (
        dialect.delimiter or (mark and mark[1]) or _delimiter(text, location, notes, whole=whole)
    )
    names, skipped = dialect.names, int(mark is not None)
    if names is None:
        records = _split(io.StringIO(text, newline=""), delimiter, quoted=dialect.quoted)
        for number, _, fields in itertools.islice(records, skipped, None):
            names, skipped = tuple(name.strip() for name in fields), number - 1
            if any(name != field for name, field in zip(names, fields, strict=True)):
                notes.append(f"{location.name}: blanks around the names of columns are removed")
            break
    if names is None:
        raise DataError(f"{location} is empty; its first line must name the columns")
    return Text(
        location=location,
        delimiter=delimiter,
        encoding=encoding,
        columns=names,
        header=dialect.names is None,
        quoted=dialect.quoted,
        skipped=skipped,
        marked=mark is not None,
    )


def _encoding(location: Location, sample: bytes, notes: list[str], *, whole: bool) -> str:
    for mark, encoding in _MARKS:
        if sample.startswith(mark):
            return encoding
    if sample[1::2].count(0) > len(sample) // 4:
        return "utf-16-le"
    if sample[::2].count(0) > len(sample) // 4:
        return "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=whole)
    except UnicodeDecodeError as exc:
        if sample.count(0):
            raise DataError(f"{location} is not text; give delimited text, or rename it") from exc
        if not _has_utf8(sample):
            encoding = "windows-1252" if _decodes(sample, "windows-1252") else "latin-1"
            notes.append(
                f"{location.name} is not UTF-8 and is read as {encoding}; --encoding names another"
            )
            return encoding
    return "utf-8"


def _has_utf8(sample: bytes) -> bool:
    """Return whether some line has characters beyond ASCII that are UTF-8."""
    return any(not line.isascii() and _decodes(line, "utf-8") for line in sample.split(b"\n")[:-1])


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(text: str, location: Location, notes: list[str], *, whole: bool) -> str:
    """Return the delimiter that splits the first rows most alike."""
    lines = list(io.StringIO(text, newline=""))
    lines = lines if whole or len(lines) == 1 else lines[:-1]
    first = {".tsv": "\t", ".tab": "\t", ".psv": "|"}.get(location.ending, ",")
    best, scored = first, (0.0, 0)
    for delimiter in (first, *(d for d in DELIMITERS if d != first)):
        rows = [
            fields for *_, fields in itertools.islice(_split(iter(lines), delimiter), _SAMPLE_ROWS)
        ]
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        alike = sum(len(fields) == width for fields in rows) / len(rows)
        if (round(alike, 1), width) > scored:
            best, scored = delimiter, (round(alike, 1), width)
    if best != first:
        notes.append(f"{location.name} is read with the delimiter {best!r}")
    return best


def _split(
    stream: Iterator[str], delimiter: str, *, quoted: bool = True
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield number (from 1), first line and fields of each row that is not blank.

    Blank lines have numbers, too; rows with line breaks in quotes have several lines.
    """
    if not quoted or len(delimiter) > 1:
        for line, text in enumerate(stream, start=1):
            if text := text.rstrip("\r\n"):
                yield line, line, text.split(delimiter)
        return
    reader = csv.reader(stream, delimiter=delimiter)
    before = 0
    for number, fields in enumerate(reader, start=1):
        if fields:
            yield number, before + 1, fields
        before = reader.line_num


def _picked(lines: Iterator[int], rows: Sequence[int]) -> list[int]:
    """Return the items at some positions, ascending."""
    wanted, picked = iter(rows), list[int]()
    row = next(wanted, None)
    for at, line in enumerate(lines):
        if at == row:
            picked.append(line)
            row = next(wanted, None)
            if row is None:
                break
    return picked


@contextlib.contextmanager
def _decoded(location: Location, encoding: str, *, errors: str) -> Iterator[Iterator[str]]:
    with location.open() as stream:
        # Also for streams of Arrow, which the wrapper closes with the rest.
        yield io.TextIOWrapper(stream, encoding, errors=errors, newline="")


def _odd_byte(location: Location, line: int) -> str:
    with location.open() as stream:
        for text in itertools.islice(stream, line - 1, line):
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as exc:
                return f" (byte {text[exc.start]:#04x} at {exc.start + 1})"
    return ""
