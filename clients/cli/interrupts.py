"""Ctrl-C and SIGTERM as `KeyboardInterrupt`, so that none of them is lost."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

__all__ = ["interruptible"]

_AGAIN: Final = 0.05  # seconds
_FINALISERS: Final = ("weakref", "_weakrefset")  # modules whose functions are callbacks


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` for both signals within the context; main thread only.

    SIGTERM is included, so that servers stop and staging folders are removed when the parent
    process ends this one. A SIGINT that the parent ignored (a background job) stays ignored.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    interrupts = _Interrupts()
    previous = {number: signal.signal(number, interrupts.handle) for number in numbers}
    try:
        yield
    finally:
        interrupts.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Interrupts:
    """Raises for a signal, and sends it again if the exception was lost.

    Python drops what a finaliser raises, and TensorFlow has many of them; some libraries have
    a bare `except:`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._ours = False  # we sent the next signal
        self._due = False  # a signal may have been lost
        self._raised: KeyboardInterrupt | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, from outside or sent again by us."""
        ours, self._ours = self._ours, False
        raised, self._raised = self._raised, None
        if ours:
            # An `except`, a `finally` or a context may be handling it.
            self._due = self._due and not (raised is not None and _is_handled(raised))
            if not self._due:
                return
        self._due = True
        self._send_later(number)
        if not _in_finaliser(frame):
            self._raised = KeyboardInterrupt()
            raise self._raised

    def close(self) -> None:
        """Send no more signals."""
        with self._lock:
            self._open = False
        self._raised = None

    def _send_later(self, number: int) -> None:
        # Not by `threading`, whose lock the interrupted code may hold. If no thread can be
        # started, the signal is not sent again.
        with suppress(RuntimeError):
            _thread.start_new_thread(self._send, (number,))

    def _send(self, number: int) -> None:
        time.sleep(_AGAIN)
        with self._lock:
            if self._open:
                self._ours = True
                os.kill(os.getpid(), number)


def _is_handled(raised: KeyboardInterrupt) -> bool:
    """Return whether running code handles the exception, or one that its handling raised."""
    exception = sys.exception()
    while exception is not None and exception is not raised:
        exception = exception.__context__
    return exception is not None


def _in_finaliser(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") in _FINALISERS:
            return True
        frame = frame.f_back
    return False
