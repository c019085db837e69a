"""The engine that parses text, when a signal interrupts it."""

import os
import signal
import threading

import pytest

from shortlist.export.data.reading.engine import connect


def ask_for_long(signalling: threading.Thread) -> None:
    with connect() as engine:
        # An interrupt waits for the pieces that other threads work on; if one of them takes up
        # this query, its piece is all of it.
        engine.execute("SET threads = 1")
        signalling.start()
        engine.execute("SELECT sum(hash(i)) FROM range(100_000_000_000) t(i)").fetchall()


def test_an_interrupted_query_is_a_keyboard_interrupt() -> None:
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        with pytest.raises(KeyboardInterrupt):
            ask_for_long(timer)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
