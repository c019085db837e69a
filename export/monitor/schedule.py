"""Rounds at regular moments, of which a failed one does not stop the next."""

import time
from collections.abc import Callable

__all__ = ["run_rounds"]


def run_rounds(
    work: Callable[[], None],
    *,
    every: float,
    failed: Callable[[Exception, float], None],
    errors: tuple[type[Exception], ...],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Work at once and then every so many seconds, until an exception that is no failure.

    A round that takes longer than the interval delays the next one; none is caught up.

    Args:
        work: One round.
        every: Seconds from the start of a round to that of the next.
        failed: Called with the failure of a round and the seconds until the next one.
        errors: Exceptions that are failures of a round.
        clock: Monotonic clock.
        sleep: Waits for some seconds.
    """
    due = clock()
    while True:
        problem: Exception | None = None
        try:
            work()
        except errors as exc:
            problem = exc
        now = clock()
        due = max(due + every, now)
        if problem is not None:
            failed(problem, due - now)
        sleep(due - now)
