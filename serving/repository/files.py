"""Files that several processes share: whole writes that survive a crash, and locks."""

import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shortlist.serving.errors import RepositoryError

__all__ = ["file_lock", "flush", "flush_tree", "write_atomically"]

log = logging.getLogger(__name__)

_POLL_INTERVAL: Final = 0.1  # seconds


def flush(path: Path) -> None:
    """Flush one file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flush a folder and everything in it to disk."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file; a reader sees the old text or the new, whole."""
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextmanager
def file_lock(path: Path, *, timeout: float, by: str = "publisher") -> Iterator[None]:
    """Hold a lock between processes, which the kernel frees if its holder dies.

    Args:
        path: The lock file; created if missing, never removed.
        timeout: Seconds to wait for another holder.
        by: Kind of process that holds such locks, for the message.

    Raises:
        RepositoryError: Another process still holds the lock; the message names it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + timeout
        waiting = False
        while not _try_lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
            if time.monotonic() >= deadline:
                raise RepositoryError(
                    f"{path.parent} is locked by another {by} ({holder or 'unknown'}); "
                    f"waited {timeout:g} s; try again when it has ended"
                )
            if not waiting:
                log.info("waiting for another %s (%s)", by, holder)
                waiting = True
            time.sleep(_POLL_INTERVAL)
        with suppress(OSError):  # for information; a full disk must not lock anyone out
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
