"""Limits of one request, and the memory that all requests share.

Every step that makes more of a request than its sender spent on it (unzipping, parsing,
filling in values, running, answering) first takes its estimate from one `MemoryRoom`.
"""

import os
import resource
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shortlist.serving.embedded.api.errors import Code, StatusError

__all__ = [
    "MIB",
    "UNLIMITED",
    "MemoryRoom",
    "RequestLimits",
    "RequestMemory",
    "default_memory",
    "descriptor_share",
    "too_many",
]

MIB: Final = 2**20
_CGROUPS: Final = Path("/sys/fs/cgroup")
_SMALLEST: Final = 128 * MIB
_LARGEST: Final = 1024 * MIB
_OTHER_DESCRIPTORS: Final = 256


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """Limits of one request; 0 stands for no limit.

    Attributes:
        max_bytes: Size of the request, unzipped.
        max_values: Its values that need more memory than they have in the message: strings,
            JSON values, and numbers that are packed or filled in.
        max_rows: First dimension of a tensor.
        max_results: Rows times `k`, for signatures with the scalar input `k`.
        max_response_bytes: Size of all outputs together.
    """

    max_bytes: int = 64 * MIB
    max_values: int = 1_000_000
    max_rows: int = 10_000
    max_results: int = 1_000_000
    max_response_bytes: int = 64 * MIB

    def check_bytes(self, size: int) -> None:
        """Raise RESOURCE_EXHAUSTED if a request of this size is too large."""
        _check(size, self.max_bytes, "bytes", "max_request_bytes")

    def check_values(self, values: int) -> None:
        """Raise RESOURCE_EXHAUSTED if these are too many values for one request."""
        _check(values, self.max_values, "values", "max_request_values")

    def check_rows(self, rows: int) -> None:
        """Raise RESOURCE_EXHAUSTED if these are too many rows for one request."""
        _check(rows, self.max_rows, "rows", "max_request_rows")

    def check_results(self, rows: int, k: int) -> None:
        """Raise RESOURCE_EXHAUSTED if these are too many results for one request."""
        if 0 < self.max_results < rows * k:  # the text would take longer than the check
            unit = f"results ({rows} rows x k={k})"
            raise too_many(rows * k, self.max_results, unit, "max_request_results")

    def check_response(self, size: int) -> None:
        """Raise RESOURCE_EXHAUSTED if the answer would be too large."""
        if 0 < self.max_response_bytes < size:
            raise StatusError(
                Code.RESOURCE_EXHAUSTED,
                f"the answer has {size} bytes; this server sends {self.max_response_bytes} "
                "(--max_response_bytes): ask for fewer rows or results, or set output_filter",
            )


UNLIMITED: Final = RequestLimits(
    max_bytes=0, max_values=0, max_rows=0, max_results=0, max_response_bytes=0
)


def too_many(count: int, limit: int, unit: str, flag: str) -> StatusError:
    """Return the refusal of a request that exceeds a limit."""
    return StatusError(
        Code.RESOURCE_EXHAUSTED,
        f"the request has {count} {unit}; this server takes {limit} (--{flag}): send them in "
        "several requests",
    )


def _check(count: int, limit: int, unit: str, flag: str) -> None:
    if 0 < limit < count:
        raise too_many(count, limit, unit, flag)


class MemoryRoom:
    """Memory that all requests share.

    Args:
        limit: Size in bytes; 0 for no limit.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """Bytes that are reserved."""
        return self._taken

    def take(self, size: int) -> bool:
        """Reserve memory; False if there is not enough."""
        with self._lock:
            if 0 < self.limit < self._taken + size:
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Release memory."""
        if size:
            with self._lock:
                self._taken -= size

    def need(self, size: int) -> None:
        """Reserve memory.

        Raises:
            StatusError: RESOURCE_EXHAUSTED; there is not enough.
        """
        if not self.take(size):
            raise StatusError(
                Code.RESOURCE_EXHAUSTED,
                f"the request needs {size} bytes, and {self._taken} of the {self.limit} bytes of "
                "memory for requests are in use (--request_memory_mb); try again",
            )


class RequestMemory:
    """Memory of one request, taken bit by bit and released at once."""

    def __init__(self, room: MemoryRoom) -> None:
        self._room = room
        self._taken = 0

    def need(self, size: int) -> None:
        """Reserve memory; see `MemoryRoom.need`."""
        self._room.need(size)
        self._taken += size

    def release(self) -> None:
        """Give back all of it."""
        if self._taken:
            self._room.give(self._taken)
            self._taken = 0


def descriptor_share(parts: int, *, most: int) -> int:
    """Return one of some equal parts of the file descriptors for connections.

    These are all but some for models, logs and libraries.

    Args:
        parts: Number of parts.
        most: Largest share.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    return max(16, min(most, (soft - _OTHER_DESCRIPTORS) // parts))


def default_memory(cgroups: Path = _CGROUPS) -> int:
    """Return a quarter of the memory of the control group or machine, 128 MiB to 1 GiB."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # versions 2 and 1
        try:
            text = (cgroups / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # not "max"
            limits.append(int(text))
    return max(_SMALLEST, min(_LARGEST, min(limits) // 4))
