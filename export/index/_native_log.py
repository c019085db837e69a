"""Keeps native libraries' chatter off the terminal."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_native_log"]

log = logging.getLogger(__name__)

_STDERR = 2


@contextmanager
def quiet_native_log() -> Iterator[None]:
    """Sends what native code writes to stderr to our own log instead.

    ScaNN logs its training through a copy of Abseil that no setting reaches. After a
    failure the lines are logged as errors: they may say more than the exception.
    """
    level = logging.ERROR
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDERR)
        try:
            yield
            level = logging.DEBUG
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                log.log(level, "%s", line)
