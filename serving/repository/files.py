"""Writing files so that they survive a crash and are never seen half-written."""

import os
import tempfile
from pathlib import Path

__all__ = ["flush", "flush_tree", "write_atomically"]


def flush(path: Path) -> None:
    """Flushes one file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flushes a folder and all that is in it to disk."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def write_atomically(path: Path, text: str) -> None:
    """Replaces a small file so that a reader sees the old text or the new, never a part."""
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
