"""Progress of long work, with the remaining time: a line on terminals, now and then one in logs.

Code that works for long says so by `working` or `tracked`, in any package. Nothing is shown
unless a command runs that is not quiet, as with logging that is not configured.
"""

import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from shortlist.clients._printable import printable
from shortlist.clients.cli.output import progress
from shortlist.clients.cli.terminal import TERMINAL

__all__ = ["Meter", "Work", "in_words", "tracked", "working"]

T = TypeVar("T")

_TICK: Final = 0.2  # seconds; more often is not readable
_PATIENCE: Final = 2.0  # seconds without a sign of life on a terminal
_FIRST_LINE: Final = 10.0  # seconds until the first line in a log; later ones take a quarter more
_LINE_SHARE: Final = 0.25
_BAR: Final = 20  # characters


class Work:
    """Work in progress.

    Attributes:
        name: Short name, such as that of the step.
        total: Units of work; `None` if unknown.
        done: Units done.
        facts: Further facts, such as a loss.
    """

    def __init__(self, name: str, total: int | None, now: float) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.facts = ""
        self.began = now
        self._base = 0  # done before, by an earlier process
        self._since = now

    def start(self, total: int, *, done: int = 0, now: float | None = None) -> None:
        """Set the units, of which some were done before and do not count for the speed."""
        self.total, self.done, self._base = total, done, done
        self._since = time.monotonic() if now is None else now

    def line(self, now: float, *, bar: bool = False) -> str:
        """Return what is known: share, units, remaining time, facts."""
        if self.total is None:
            parts = [in_words(now - self.began)]
        else:
            share = min(1.0, self.done / self.total) if self.total else 1.0
            drawn = f"|{'█' * round(share * _BAR):{_BAR}}| " if bar else " "
            parts = [f"{share:.0%}{drawn}{self.done:,}/{self.total:,}"]
            if self.done > self._base:
                each = (now - self._since) / (self.done - self._base)
                parts.append(f"{in_words((self.total - self.done) * each)} left")
        return ", ".join([*parts, *filter(None, [self.facts])])


class Meter:
    """Shows the work in progress, from a thread, since the work itself may be one long call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stack: list[Work] = []
        self._due = 0.0  # next line in a log
        self._stop: threading.Event | None = None

    @contextmanager
    def working(self, name: str, total: int | None = None) -> Iterator[Work]:
        """Show work until the end of the context; inside other work, instead of it."""
        now = self._clock()
        work = Work(name, total, now)
        if not self._stack:
            self._due = now + _FIRST_LINE
        self._stack.append(work)
        if self._stop is None and TERMINAL.attended:
            self._stop = threading.Event()
            threading.Thread(
                target=self._run, args=(self._stop,), name="progress", daemon=True
            ).start()
        try:
            yield work
        finally:
            self._stack.remove(work)
            if not self._stack:
                if self._stop is not None:
                    self._stop.set()
                    self._stop = None
                TERMINAL.clear()

    def show(self) -> None:
        """Draw the line, or write one that is due."""
        stack = list(self._stack)
        now = self._clock()
        if not stack or not TERMINAL.attended:
            return
        names = ", ".join(dict.fromkeys(work.name for work in stack))
        # The innermost that can tell how much is left.
        shown = next((work for work in reversed(stack) if work.total is not None), stack[-1])
        if TERMINAL.redraws:
            if now - stack[0].began >= _PATIENCE:
                text = printable(f"{names}: {shown.line(now, bar=True)}")
                TERMINAL.draw(text[: shutil.get_terminal_size().columns - 1])
        elif now >= self._due:
            self._due = now + max(_FIRST_LINE, _LINE_SHARE * (now - stack[0].began))
            progress(f"{names}: {shown.line(now)}")

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(_TICK):
            self.show()


_METER: Final = Meter()
working = _METER.working


def tracked(items: Collection[T], name: str) -> Iterator[T]:
    """Yield items and count those that are done."""
    with working(name, len(items)) as work:
        for item in items:
            yield item
            work.done += 1


def in_words(seconds: float) -> str:
    """Return a length of time, rounded: 75 s, 12 min, 2.5 h."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
