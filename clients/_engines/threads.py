"""A pool of threads that survives forks."""

import threading
from concurrent.futures import ThreadPoolExecutor

from shortlist.clients._engines.forks import generation

__all__ = ["Threads"]


class Threads:
    """Threads that start with their first use; safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pool: ThreadPoolExecutor | None = None
        self._born_in = 0
        self._lock = threading.Lock()

    def pool(self) -> ThreadPoolExecutor:
        """Return the pool."""
        with self._lock:
            # Threads do not survive a fork, so a child process creates its own.
            if self._pool is None or self._born_in != generation():
                self._pool = ThreadPoolExecutor(self._most, "shortlist-client")
                self._born_in = generation()
            return self._pool

    def close(self) -> None:
        """End the threads; may be called twice."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._born_in == generation():
            pool.shutdown(wait=True, cancel_futures=True)
