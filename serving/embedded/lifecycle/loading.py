"""The load of one version: attempts, retries and cancellation."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import Servable

__all__ = ["LoadRetries", "LoadServable", "load_with_retries"]

log = logging.getLogger(__name__)

# Loads and warms up a version of a model from a path.
LoadServable = Callable[[str, int, str], Servable]


@dataclass(frozen=True, kw_only=True)
class LoadRetries:
    """Retries of a failed load.

    Attributes:
        max_retries: Maximum number of retries; less than 0 counts as 0.
        interval: Seconds between two attempts; less than 0 counts as 0.
    """

    max_retries: int = 5
    interval: float = 60.0


def load_with_retries(
    load: LoadServable,
    name: str,
    version: int,
    path: str,
    *,
    retries: LoadRetries,
    cancelled: threading.Event,
    slot: Callable[[], AbstractContextManager[None]],
) -> Servable:
    """Load a version, and retry after failures.

    Args:
        load: Loads the version once.
        name: Model name.
        version: Version number.
        path: Folder of the version.
        retries: Number and interval of retries.
        cancelled: Set when the version is no longer aspired; ends the wait for the next attempt.
        slot: Held during each attempt, not between attempts, so that a version that keeps
            failing does not keep others from loading.

    Raises:
        StatusError: The last attempt failed, with any exception.
    """
    for attempt in range(max(retries.max_retries, 0) + 1):
        if attempt and cancelled.wait(max(retries.interval, 0.0)):
            break
        try:
            with slot():
                return load(name, version, path)
        except StatusError as exc:
            failure = exc
        except Exception as exc:
            # A bug in the loader must not take the server down.
            log.exception("loading version %d of %s failed unexpectedly", version, name)
            failure = StatusError(Code.INTERNAL, f"{type(exc).__name__}: {exc}")
        log.warning(
            "Loading servable: {name: %s version: %d} failed: %s: %s",
            *(name, version, failure.code.name, failure.message),
        )
    raise failure
