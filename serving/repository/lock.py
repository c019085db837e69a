"""A lock between processes, held on a file and freed by the kernel when its holder dies."""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shortlist.serving.errors import RepositoryError

__all__ = ["file_lock"]

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.1


@contextmanager
def file_lock(path: Path, *, timeout: float, by: str = "publisher") -> Iterator[None]:
    """Holds the lock file `path` exclusively, waiting up to `timeout` seconds.

    Args:
        path: The file; made if missing, never removed.
        timeout: Seconds.
        by: Who holds such locks, for the message.

    Raises:
        RepositoryError: Somebody else still holds it; the message names them.
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
                    f"waited {timeout:g} s, try again when it has ended"
                )
            if not waiting:
                log.info("waiting for another %s (%s)", by, holder)
                waiting = True
            time.sleep(POLL_INTERVAL)
        with suppress(OSError):  # only told to others; a full disk must not keep anybody out
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
