"""The engine that parses text, when a signal interrupts it."""

import os
import signal
import threading

import pytest

from shortlist.export.data.reading.engine import connect


def test_an_interrupted_query_is_a_keyboard_interrupt() -> None:
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), connect() as engine:
            engine.execute("SELECT sum(hash(i)) FROM range(100_000_000_000) t(i)").fetchall()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
