"""Keeps TensorFlow's notices away from the user."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shortlist.clients.cli.output import tell

__all__ = ["without_notices"]

_NOTICE: Final = re.compile(r"I\d{4} |WARNING: All log messages before absl")


@contextmanager
def without_notices() -> Iterator[None]:
    """Drop what TensorFlow notes on stderr when it is loaded or first run, at any log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            written.seek(0)
            for line in written.read().decode("utf-8", "replace").splitlines():
                if not _NOTICE.match(line):
                    tell(line)
