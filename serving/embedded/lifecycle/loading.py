"""One version's load: tries, retries, and giving up when nobody wants it any more."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import Servable

__all__ = ["LoadRetries", "LoadServable", "load_with_retries"]

log = logging.getLogger(__name__)

# Loads a version of a model from a path, warmed up.
LoadServable = Callable[[str, int, str], Servable]


@dataclass(frozen=True, kw_only=True)
class LoadRetries:
    """How often a failed load is tried again.

    Attributes:
        max_retries: Tries after the first; less than 0 counts as 0.
        interval: Seconds between two tries; less than 0 does not wait.
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
    """Loads a version, and again after failures.

    Args:
        load: Loads it once.
        name: Model name.
        version: Version number.
        path: Its folder.
        retries: How often and how soon.
        cancelled: Set when the version is not wanted any more: ends the wait for the next try.
        slot: Held during each try, not between them, so that a version that fails again
            and again does not keep others from loading.

    Raises:
        StatusError: The last failure, whatever it was in the first place.
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
            # The loader's own fault must not take the server down with it.
            log.exception("loading version %d of %s failed unexpectedly", version, name)
            failure = StatusError(Code.INTERNAL, f"{type(exc).__name__}: {exc}")
        log.warning(
            "Loading servable: {name: %s version: %d} failed: %s: %s",
            *(name, version, failure.code.name, failure.message),
        )
    raise failure
