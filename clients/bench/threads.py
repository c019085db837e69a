"""Calls of many threads that share one client: how many fail, and how long they take."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shortlist.clients import CallEvent, RetrievalClient
from shortlist.clients.errors import ServingError

__all__ = ["measure_threads"]


def measure_threads(
    kind: Callable[..., RetrievalClient],
    address: str,
    model: str,
    *,
    threads: int,
    calls: int,
    batch: int,
) -> dict[str, Any]:
    """Return the calls, failures by error, tries per call, and latencies in milliseconds.

    Args:
        kind: `GrpcClient` or `RestClient`, with its default options.
        address: Server address.
        model: Name of the servable.
        threads: Number of threads.
        calls: Number of calls of all threads together.
        batch: Users of one call.
    """
    events: list[CallEvent] = []
    failures: Counter[str] = Counter()
    milliseconds: list[float] = []
    client = kind(address, model=model, hooks=[events.append])
    with client, ThreadPoolExecutor(threads) as pool:

        def call(number: int) -> None:
            started = time.perf_counter()
            try:
                client.retrieve([f"user {number + row}" for row in range(batch)])
            except ServingError as error:
                failures[type(error).__name__] += 1
            milliseconds.append((time.perf_counter() - started) * 1e3)

        began = time.perf_counter()
        list(pool.map(call, range(calls)))
        seconds = time.perf_counter() - began
    cuts = statistics.quantiles(milliseconds, n=100)
    return {
        "calls": calls,
        "failed": dict(failures),
        "tries_per_call": sum(event.attempts for event in events) / len(events),
        "calls_per_second": calls / seconds,
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
    }
