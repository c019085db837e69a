"""Runs flows in threads of their own, for requests whose answers no caller waits for."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from shortlist.clients._calls.call import Flow
from shortlist.clients._engines.forks import generation

__all__ = ["MAX_SPAWNED", "Background"]

log = logging.getLogger(__name__)

MAX_SPAWNED: Final = 32  # waiting or running; more are dropped
_THREADS: Final = 2
_MAX_WAIT: Final = 2.0  # seconds; a program that ends waits for what is left


class Background:
    """A few threads and a short queue; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._born_in = 0
        self._spawned = 0
        self._closed = False

    def start(self, run: Callable[[Flow[Any]], Any], flow: Flow[Any]) -> None:
        """Run a flow unless too many wait, or it waits too long; result and errors are ignored."""
        with self._lock:
            if self._born_in != generation():  # threads do not survive a fork
                self._pool, self._spawned, self._born_in = None, 0, generation()
            if self._closed or self._spawned >= MAX_SPAWNED:
                flow.close()
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, "shortlist-background")
            try:
                self._pool.submit(self._run, run, flow, time.monotonic() + _MAX_WAIT)
                self._spawned += 1
            except RuntimeError as error:  # the program ends, or has too many threads
                log.debug("no request in the background: %s", error)

    def close(self) -> None:
        """Drop what waits; what runs ends with its connections."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None and self._born_in == generation():
            pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, run: Callable[[Flow[Any]], Any], flow: Flow[Any], latest: float) -> None:
        try:
            if time.monotonic() > latest:
                flow.close()
            else:
                run(flow)
        except Exception as error:
            log.debug("a request in the background failed: %s", error)
        finally:
            with self._lock:
                self._spawned -= 1
