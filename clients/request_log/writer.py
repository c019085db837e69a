"""Writes a request log in the background, without ever making a request wait."""

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from shortlist.clients.request_log.files import MIB, LogFile

__all__ = ["LogCounts", "LogWriter", "QueueRoom", "Record", "close_writers"]

log = logging.getLogger(__name__)

Record = bytes | Callable[[], bytes]  # a function is called in the writer's thread

_LINGER: Final = 0.2  # seconds in which records gather; as much is lost if the process is killed
_IDLE: Final = 5.0  # seconds between two looks at the age of the file
_PIECE: Final = 4 * MIB  # to write at a time
_SPARE: Final = 64  # part of the queue that counts as nothing
_OVERHEAD: Final = 150  # bytes of what holds a record in the queue


@dataclass(frozen=True, kw_only=True)
class LogCounts:
    """What became of the records.

    Attributes:
        written: Records in files.
        dropped: Records that were refused because the queue was full or closed.
        lost: Records that were accepted and could not be written.
        bytes: Compressed bytes in files.
    """

    written: int = 0
    dropped: int = 0
    lost: int = 0
    bytes: int = 0


class QueueRoom:
    """Memory for records that wait to be written; several writers may share it."""

    def __init__(self, most: int = 64 * MIB) -> None:
        self._most = most
        self.reset()

    def reset(self) -> None:
        """Make it empty, with a new lock: in a forked child."""
        self._lock = threading.Lock()
        self._held = 0

    def take(self, size: int) -> bool:
        """Reserve some bytes; False if there is no room for them."""
        with self._lock:
            if self._held + size > self._most:
                return False
            self._held += size
            return True

    def give(self, size: int) -> None:
        """Return reserved bytes."""
        with self._lock:
            self._held -= size

    @property
    def full(self) -> bool:
        """Whether next to nothing fits, so that a record is not worth building."""
        return self._held >= self._most - self._most // _SPARE


class LogWriter:
    """Queue and thread that write records to a `LogFile`; thread-safe.

    After an `OSError`, such as a full disk, the records of that attempt are lost, the file is
    left as it is, and the next attempt follows after a pause, with a new file. Meanwhile the
    queue fills up; what does not fit is dropped. All is counted. In a forked child, the writer
    begins a file of its own.

    Args:
        file: Where to write.
        room: Memory of the queue.
        retry_interval: Seconds after an error before the next attempt.
        report: Called with the name of a count and what is added to it.
    """

    def __init__(
        self,
        file: LogFile,
        *,
        room: QueueRoom | None = None,
        retry_interval: float = 10.0,
        report: Callable[[str, int], None] = lambda name, number: None,
    ) -> None:
        self._file = file
        self._room = room or QueueRoom()
        self._retry_interval = retry_interval
        self._report = report
        self._begin()
        _WRITERS.add(self)

    def _begin(self) -> None:
        """Set up an empty queue. Its thread starts with the first record, after most forks."""
        self.counts = LogCounts()
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[tuple[Record, int]] = deque()
        self._queued = 0  # bytes
        self._closing = False
        self._thread: threading.Thread | None = None
        self._resume_at = 0.0  # monotonic
        self._failing = False

    def begin_in_child(self) -> None:
        """Leave queue, thread and file to the parent process."""
        self._file.abandon(in_child=True)
        self._room.reset()
        self._begin()

    def has_room(self) -> bool:
        """Return whether a record is worth building; if not, it counts as dropped."""
        if not (self._closing or self._room.full):
            return True
        with self._changed:
            self._count("dropped", 1)
        return False

    def offer(self, record: Record, size: int) -> bool:
        """Queue a record; never waits for the disk.

        Args:
            record: A serialised `PredictionLog`, or a function that returns one.
            size: Its size in bytes.

        Returns:
            False if the record was dropped.
        """
        with self._changed:
            size += _OVERHEAD
            accepted = not self._closing and self._room.take(size)
            if accepted:
                self._queue.append((record, size))
                before, self._queued = self._queued, self._queued + size
                if len(self._queue) == 1 or before < _PIECE <= self._queued:
                    self._changed.notify()
                if self._thread is None:
                    self._start()
            else:
                self._count("dropped", 1)
        return accepted

    def _start(self) -> None:
        """Start the thread, or leave that to the next record if there are too many threads."""
        thread = threading.Thread(target=self._run, name="request log", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued and finish the file; may be called twice.

        Args:
            timeout: Seconds to wait for the disk; what is still queued then is lost.
        """
        self.finish()
        if self._thread is not None:
            self._thread.join(timeout)
        with self._changed:
            self._count("lost", len(self._queue))
            self._room.give(self._queued)
            self._queue.clear()
            self._queued = 0

    def finish(self) -> None:
        """Take no more records, and do not wait for those that are queued; `close` does."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _count(self, name: str, number: int) -> None:
        """Add to a count, under the lock."""
        if number:
            self.counts = replace(self.counts, **{name: getattr(self.counts, name) + number})
            self._report(name, number)

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        last = False
        while not last:
            with self._changed:
                self._wait()
                batch = self._take()
                last = self._closing and not self._queue
            self._write([record for record, _ in batch], last=last)
            with self._changed:
                self._room.give(sum(size for _, size in batch))
                last = last or (self._closing and self._failing)  # `close` counts the rest

    def _wait(self) -> None:
        """Wait until there is something to do."""
        pause = self._resume_at - time.monotonic()
        if pause > 0:
            self._changed.wait_for(lambda: self._closing, pause)
        elif not self._closing and not self._queue:
            self._changed.wait(_IDLE)
        if not self._closing and 0 < self._queued < _PIECE:
            self._changed.wait(_LINGER)

    def _take(self) -> list[tuple[Record, int]]:
        batch, size = [], 0
        while self._queue and size < _PIECE:
            batch.append(self._queue.popleft())
            size += batch[-1][1]
        self._queued -= size
        return batch

    def _write(self, batch: list[Record], *, last: bool) -> None:
        records = [data for record in batch if (data := self._encoded(record)) is not None]
        written = size = 0
        failure: Exception | None = None
        try:
            if records:
                size = self._file.write(records)
                written = len(records)
            elif not self._failing:
                self._file.rotate()
            if last:
                self._file.close()
        except Exception as exc:
            failure = exc
            self._file.abandon()
        if failure is not None:
            self._fail(failure)
        elif records and self._failing:
            self._failing = False
            log.info("the request log %s is written again", self._file.prefix)
        with self._changed:
            self._count("written", written)
            self._count("bytes", size)
            self._count("lost", len(batch) - written)

    def _encoded(self, record: Record) -> bytes | None:
        if isinstance(record, bytes):
            return record
        try:
            return record()
        except Exception:
            log.exception("a request cannot be logged in %s", self._file.prefix)
            return None

    def _fail(self, failure: Exception) -> None:
        self._resume_at = time.monotonic() + self._retry_interval
        if self._failing:
            return
        self._failing = True
        log.error(
            "the request log %s cannot be written (%s); requests go on without it, and it is "
            "tried again every %g s",
            self._file.prefix,
            failure.strerror if isinstance(failure, OSError) else repr(failure),
            self._retry_interval,
        )


_WRITERS: Final[weakref.WeakSet[LogWriter]] = weakref.WeakSet()


def close_writers(writers: Iterable[LogWriter], timeout: float = 5.0) -> None:
    """Close several writers, which finish at the same time.

    Args:
        writers: Writers.
        timeout: Seconds to wait for all of them.
    """
    closing = list(writers)
    deadline = time.monotonic() + timeout
    for writer in closing:
        writer.finish()
    for writer in closing:
        writer.close(max(deadline - time.monotonic(), 0.0))


def _forked() -> None:
    for writer in list(_WRITERS):
        writer.begin_in_child()


os.register_at_fork(after_in_child=_forked)
atexit.register(close_writers, _WRITERS)
