"""The files of a request log: names, rotation, and how many stay."""

import contextlib
import itertools
import logging
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from shortlist.clients.request_log.framing import checksum, frame

__all__ = ["GIB", "MIB", "PART", "SUFFIX", "LogFile", "opened_at"]

log = logging.getLogger(__name__)

MIB: Final = 2**20
GIB: Final = 2**30
SUFFIX: Final = ".tfrecord.gz"
PART: Final = ".part"  # of a file that is being written

_GZIP: Final = 16 + zlib.MAX_WBITS
_FASTEST: Final = 1  # a third of the time of the default, for a tenth more bytes
_MODE: Final = 0o640  # user ids are in it
_NAME: Final = re.compile(
    r"-(?P<opened>\d{8}T\d{6})-[\w.-]+-\d+-\d+" + re.escape(SUFFIX) + f"({re.escape(PART)})?"
)
_TIME_FORMAT: Final = "%Y%m%dT%H%M%S"
_NUMBERS: Final = itertools.count(1)  # files of this process


def opened_at(path: Path) -> float:
    """Return when a file was opened, according to its name, or last changed, in epoch seconds."""
    if match := _NAME.search(path.name):
        with contextlib.suppress(ValueError):  # digits that are not a time
            return datetime.strptime(match["opened"], _TIME_FORMAT).replace(tzinfo=UTC).timestamp()
    return path.stat().st_mtime


class LogFile:
    """Writer of TFRecord files that are compressed with gzip, rotated and limited in number.

    A file is called `PREFIX-20261128T101500-HOST-PID-N.tfrecord.gz` (UTC); while it is being
    written, `.part` follows. Several processes may share a prefix. Not thread-safe.

    Args:
        prefix: Folder and first part of the names; the folder is made if it is missing.
        max_file_bytes: Compressed size at which the next file begins.
        max_file_age: Seconds after which the next file begins.
        max_files: Finished files of this prefix to keep; `None` for no limit.
        max_bytes: Size of all files of this prefix to keep; `None` for no limit.
        together: Prefixes whose files count in `max_bytes`, too; it may grow.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        prefix: Path | str,
        *,
        max_file_bytes: int = 64 * MIB,
        max_file_age: float = 3600.0,
        max_files: int | None = None,
        max_bytes: int | None = 10 * GIB,
        together: Collection[Path] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        checksum()  # before the first record, so that a missing library is an error of the start
        self.prefix = Path(prefix)
        self._max_file_bytes = max_file_bytes
        self._max_file_age = max_file_age
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._together = together
        self._warned = False
        self._clock = clock
        self._host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:64] or "host"
        self._stream: BinaryIO | None = None
        self._zip = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)
        self._path = self.prefix
        self._size = 0
        self._opened = 0.0

    def write(self, records: Iterable[bytes]) -> int:
        """Append records and hand them to the operating system: readers find them from then on.

        Returns:
            Number of bytes written.

        Raises:
            OSError: They cannot be written. Call `abandon` before the next attempt.
        """
        self.rotate()
        if self._stream is not None and not os.fstat(self._stream.fileno()).st_nlink:
            log.warning("%s was deleted while it was being written", self._path)
            self.abandon()
        stream = self._stream or self._open()
        data = self._zip.compress(b"".join(map(frame, records)))
        data += self._zip.flush(zlib.Z_SYNC_FLUSH)
        _write_all(stream, data)
        self._size += len(data)
        return len(data)

    def rotate(self) -> None:
        """Finish the file if it is large or old enough.

        Raises:
            OSError: It cannot be finished.
        """
        if self._stream is None:
            return
        age = self._clock() - self._opened
        if self._size >= self._max_file_bytes or not 0 <= age < self._max_file_age:
            self.close()

    def close(self) -> None:
        """Finish the file, if there is one. The next record begins another.

        Raises:
            OSError: It cannot be finished; all records that `write` took are in it.
        """
        if self._stream is None:
            return
        stream, self._stream = self._stream, None
        with stream:
            _write_all(stream, self._zip.flush())
        self._path.rename(self._path.with_name(self._path.name.removesuffix(PART)))

    def abandon(self, *, in_child: bool = False) -> None:
        """Give the file up after an error, or in a forked child; it stays if it has records."""
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()
                if not self._size and not in_child:
                    self._path.unlink()
            self._stream = None

    def _open(self) -> BinaryIO:
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        self._delete_oldest()
        self._opened = self._clock()
        opened = datetime.fromtimestamp(self._opened, UTC).strftime(_TIME_FORMAT)
        number = next(_NUMBERS)
        name = f"{self.prefix.name}-{opened}-{self._host}-{os.getpid()}-{number}"
        self._path = self.prefix.with_name(f"{name}{SUFFIX}{PART}")
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        self._stream = os.fdopen(descriptor, "wb", buffering=0)
        self._zip = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)
        self._size = 0
        return self._stream

    def _delete_oldest(self) -> None:
        """Make room for another file within the limits."""
        found = sorted(
            (opened_at(path), path.name, path, status.st_size)
            for prefix in {self.prefix, *self._together}
            for path in self._files_of(prefix)
            if (status := self._settled(path))
        )
        size = self._max_file_bytes + sum(entry[-1] for entry in found)
        count = 1 + sum(path.name.startswith(self.prefix.name) for *_, path, _ in found)
        for *_, path, bytes_ in found:
            over_count = self._max_files is not None and count > self._max_files
            if not over_count and (self._max_bytes is None or size <= self._max_bytes):
                return
            try:
                path.unlink(missing_ok=True)
            except OSError as exc:
                if not self._warned:
                    log.warning("%s cannot be deleted (%s): the log grows", path, exc.strerror)
                self._warned = True
            else:
                count, size = count - 1, size - bytes_

    def _files_of(self, prefix: Path) -> Iterator[Path]:
        try:
            paths = list(prefix.parent.iterdir())
        except OSError:
            if prefix == self.prefix:
                raise
            paths = []  # another log, which says so itself
        for path in paths:
            if path.name.startswith(prefix.name) and _NAME.fullmatch(path.name, len(prefix.name)):
                yield path

    def _settled(self, path: Path) -> os.stat_result | None:
        """Return the state of a file unless a process may still write it, or it has gone."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        idle = self._clock() - status.st_mtime
        return None if path.name.endswith(PART) and idle < 2 * self._max_file_age else status


def _write_all(stream: BinaryIO, data: bytes) -> None:
    """Write to an unbuffered stream, which may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]
