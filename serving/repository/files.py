"""Files of several processes: whole writes that survive a crash, locks, temporary folders."""

import fcntl
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shortlist.serving.errors import RepositoryError

__all__ = [
    "check_writable",
    "existing_folder",
    "file_lock",
    "flush",
    "flush_tree",
    "temporary_folder",
    "write_atomically",
]

log = logging.getLogger(__name__)

_POLL_INTERVAL: Final = 0.1  # seconds
_TEMPORARY: Final = "shortlist-"  # prefix of temporary folders
_IN_USE: Final = ".in-use"  # file in each, locked while its process lives


def existing_folder(path: Path) -> Path:
    """Return the folder itself, or the nearest one above it that exists."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path())


def check_writable(folder: Path) -> None:
    """Check that a folder can be written and locked, or created if it is missing.

    Raises:
        OSError: It cannot.
    """
    # The permissions alone do not tell: the file system may be read-only, full or without locks.
    with (
        tempfile.NamedTemporaryFile(prefix=".check-", dir=existing_folder(folder)) as probe,
        file_lock(Path(probe.name), timeout=0),
    ):
        probe.write(bytes(4096))
        probe.flush()


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
        OSError: The file cannot be opened, or is a link: what it leads to would be overwritten.
        RepositoryError: Another process still holds the lock; the message names it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
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


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """Make a folder that is removed at the end of the context, or if this process is killed.

    Nothing runs after a kill, so each call first removes the folders of killed processes: those
    that are not locked any more.

    Args:
        purpose: Word for the name of the folder.
    """
    _remove_unlocked()
    folder, descriptor = _locked_folder(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(purpose: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{purpose}-"))
        lock = folder / _IN_USE
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if lock.exists():
            return folder, descriptor
        os.close(descriptor)  # another process removed it before it was locked


def _remove_unlocked() -> None:
    removed = []
    for lock in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*/{_IN_USE}"):
        try:
            if lock.lstat().st_uid != os.getuid():
                continue
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:
            continue  # its process has just removed it
        try:
            if _try_lock(descriptor):
                shutil.rmtree(lock.parent, ignore_errors=True)
                removed.append(str(lock.parent))
        finally:
            os.close(descriptor)
    if removed:
        log.warning("removed what a stopped process left behind: %s", ", ".join(removed))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
