"""The terminal of a command: whether it is quiet, has colours, and shows a line that changes."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TextIO

__all__ = ["TERMINAL", "Terminal", "has_colours"]

_CLEAR: Final = "\r\x1b[K"


class Terminal:
    """Standard output and error of a command, and at most one changing line on the latter.

    Attributes:
        attended: A command runs and is not quiet: progress is shown.
        quiet: Progress and notes are left out; results, warnings and errors are not.
    """

    def __init__(self) -> None:
        self.attended = False
        self.quiet = False
        self._drawn = False
        self._lock = threading.RLock()

    @contextmanager
    def session(self, *, quiet: bool) -> Iterator[None]:
        """Show progress, unless quiet, until the end of a command."""
        before = self.attended, self.quiet
        self.attended, self.quiet = not quiet, quiet
        try:
            yield
        finally:
            self.clear()
            self.attended, self.quiet = before

    def write(self, stream: TextIO, text: str) -> None:
        """Write whole lines, in place of the changing one."""
        with self._lock:
            self.clear()
            stream.write(text)
            stream.flush()

    def draw(self, text: str) -> None:
        """Show a line on stderr until the next one; `redraws` must be true."""
        with self._lock:
            sys.stderr.write(f"{_CLEAR}{text}")
            sys.stderr.flush()
            self._drawn = True

    def clear(self) -> None:
        """Remove the changing line."""
        with self._lock:
            if self._drawn:
                self._drawn = False
                sys.stderr.write(_CLEAR)
                sys.stderr.flush()

    @property
    def redraws(self) -> bool:
        """Whether stderr can show a line that changes."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


TERMINAL: Final = Terminal()


def has_colours(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream shows colours: a terminal does.

    `NO_COLOR` and `FORCE_COLOR`, if set and not empty, decide in this order; `TERM=dumb` is a
    terminal without colours.
    """
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"
