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
    """Both signals raise `KeyboardInterrupt` within the context; for the main thread alone.

    Whoever started us may end us by SIGTERM: servers are then stopped and stagings removed.
    A SIGINT that the parent had ignored (a job in the background) stays ignored.
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
    """Raises for a signal, and looks a moment later whether that did any good.

    Python drops what a finaliser raises, and TensorFlow has many of them; some libraries have
    an `except:` around what may fail. Then the signal comes again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._ours = False  # the next signal is sent by us
        self._due = False  # nobody is known to deal with a signal that came
        self._raised: KeyboardInterrupt | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal, somebody's or ours."""
        ours, self._ours = self._ours, False
        raised, self._raised = self._raised, None
        if ours:
            # An `except`, a `finally` or a context may have it by now.
            self._due = self._due and not (raised is not None and _is_handled(raised))
            if not self._due:
                return
        self._due = True
        self._send_later(number)
        if not _in_finaliser(frame):
            self._raised = KeyboardInterrupt()
            raise self._raised

    def close(self) -> None:
        """Sends no signal from now on."""
        with self._lock:
            self._open = False
        self._raised = None

    def _send_later(self, number: int) -> None:
        # Not by `threading`, whose lock the interrupted code may hold. Where no thread can be
        # started, the signal does not come again.
        with suppress(RuntimeError):
            _thread.start_new_thread(self._send, (number,))

    def _send(self, number: int) -> None:
        time.sleep(_AGAIN)
        with self._lock:
            if self._open:
                self._ours = True
                os.kill(os.getpid(), number)


def _is_handled(raised: KeyboardInterrupt) -> bool:
    """Whether what runs now is dealing with it, or with what came of dealing with it."""
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
