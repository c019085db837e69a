"""Ctrl-C and SIGTERM as `KeyboardInterrupt`, so that none of them is lost."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    previous = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not _in_finaliser(frame):
        raise KeyboardInterrupt
    # Python drops what a finaliser raises, and TensorFlow has many of them: the signal
    # comes again when this one is over.
    again = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _in_finaliser(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") in _FINALISERS:
            return True
        frame = frame.f_back
    return False
