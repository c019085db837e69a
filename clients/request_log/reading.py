"""Reads the files of request logs, finished or not."""

import logging
import zlib
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from math import inf
from pathlib import Path
from typing import BinaryIO, Final

from google.protobuf.message import DecodeError

from shortlist.clients.errors import ShortlistError
from shortlist.clients.request_log.files import PART, SUFFIX, opened_at
from shortlist.clients.request_log.framing import DamagedError, is_framed, unframed
from shortlist.clients.request_log.records import LogRecord, decode

__all__ = ["LogFileError", "log_files", "read_log", "read_records"]

log = logging.getLogger(__name__)

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 16 + zlib.MAX_WBITS
_CHUNK: Final = 2**20
_SUFFIXES: Final = (SUFFIX, SUFFIX + PART, ".tfrecord")


class LogFileError(ShortlistError):
    """A request log is missing or damaged."""


def read_log(
    paths: Path | str | Iterable[Path | str], *, since: float = 0.0
) -> Iterator[LogRecord]:
    """Yield the records of request logs, file by file in order of time.

    Args:
        paths: Files, folders and patterns such as `logs/retrieval-202611*`. Files may be
            compressed with gzip or not, and be in use.
        since: Epoch seconds; files that were last written before are left out.

    Raises:
        LogFileError: A file does not exist, or a record is damaged.
    """
    for path in log_files(paths):
        if since and _written(path) < since:
            continue
        for number, data in enumerate(read_records(path), 1):
            try:
                record = decode(data)
            except (DecodeError, ValueError) as exc:
                raise LogFileError(
                    f"{path}: record {number} is not a PredictionLog ({exc}); is it a request "
                    "log or a file of warm-up records?"
                ) from exc
            yield record


def log_files(paths: Path | str | Iterable[Path | str]) -> list[Path]:
    """Return the files that are meant, in order of time.

    Raises:
        LogFileError: A file does not exist.
    """
    found: dict[Path, float] = {}
    for path in [paths] if isinstance(paths, Path | str) else paths:
        files = list(_files(str(path)))
        if not files:
            raise LogFileError(
                f"no request log at {path}; name files (*{SUFFIX}), folders with such files, or "
                "patterns"
            )
        for file in files:
            try:
                found[file] = opened_at(file)
            except FileNotFoundError:
                raise LogFileError(f"no request log at {file}") from None
    return sorted(found, key=lambda file: (found[file], file.name))


def _files(path: str) -> Iterator[Path]:
    if Path(path).is_dir():
        for file in Path(path).rglob("*"):
            if file.name.endswith(_SUFFIXES) and file.is_file():
                yield file
    elif not Path(path).exists() and has_magic(path):
        for match in glob(path, recursive=True):
            yield from _files(match)
    elif Path(path).exists():
        yield Path(path)


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of one TFRecord file.

    A file that a process has not finished, or that is cut off, is read up to its last whole
    record, and a warning says so.

    Raises:
        LogFileError: The file cannot be read, or a record is damaged.
    """
    count = 0
    try:
        with _open(path) as stream:
            chunks = _Chunks(stream)
            records = unframed(chunks)
            while True:
                try:
                    record = next(records)
                except StopIteration as stop:
                    unfinished = stop.value > 0 or not chunks.ended
                    break
                count += 1
                yield record
    except DamagedError as exc:
        if exc.offset == 0:
            raise LogFileError(
                f"{path} is not a request log, or its first record is damaged ({exc}); name files "
                f"*{SUFFIX}"
            ) from exc
        place = "unzipped byte" if chunks.zipped else "byte"
        raise LogFileError(
            f"{path}: {exc} at {place} {exc.offset}, after {count} records; restore the file, or "
            "leave it out"
        ) from exc
    except zlib.error as exc:
        raise LogFileError(
            f"{path}: not readable as gzip before byte {chunks.position}, after {count} records "
            f"({exc}); restore the file, or leave it out"
        ) from exc
    except OSError as exc:
        raise LogFileError(f"cannot read {path}: {exc.strerror}") from exc
    if unfinished:
        log.warning("%s is not finished: read its %d whole records", path, count)


def _written(path: Path) -> float:
    """Return when a file was last written; the end of time if it has gone, for the message."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return inf


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        if not path.name.endswith(PART):
            raise
        return path.with_name(path.name.removesuffix(PART)).open("rb")  # finished in the meantime


class _Chunks:
    """Parts of a file, unzipped if it is zipped.

    Attributes:
        zipped: Whether the file is compressed with gzip.
        position: Number of bytes read of the file.
        ended: Whether the end of the file is also the end of what was compressed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        start = stream.read(_CHUNK)
        self._start = start
        self.zipped = start.startswith(_GZIP_MAGIC) and not is_framed(start)
        self.position = len(start)
        self.ended = not self.zipped

    def __iter__(self) -> Iterator[bytes]:
        return self._unzipped() if self.zipped else self._read()

    def _read(self) -> Iterator[bytes]:
        data = self._start
        while data:
            yield data
            data = self._stream.read(_CHUNK)
            self.position += len(data)

    def _unzipped(self) -> Iterator[bytes]:
        unzip = zlib.decompressobj(_GZIP)
        for data in self._read():
            while data:
                if unzip.eof:  # another member follows
                    unzip = zlib.decompressobj(_GZIP)
                yield unzip.decompress(data, _CHUNK)
                data = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
            self.ended = unzip.eof
