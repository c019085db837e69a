"""Failures: a canonical status code and a message."""

from enum import IntEnum
from typing import Final

__all__ = ["Code", "StatusError", "invalid"]


class Code(IntEnum):
    """Canonical status codes, as in gRPC and `tensorflow.error.Code`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# Messages quote requests, which can be megabytes long; gRPC sends 8 kB of headers at most.
_MAX_MESSAGE: Final = 4096


class StatusError(Exception):
    """A failure with a canonical code; each transport reports it in its own form.

    Long messages are cut.
    """

    def __init__(self, code: Code, message: str) -> None:
        if len(message) > _MAX_MESSAGE:
            message = f"{message[:_MAX_MESSAGE]}... ({len(message)} characters)"
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> StatusError:
    """Return an INVALID_ARGUMENT error."""
    return StatusError(Code.INVALID_ARGUMENT, message)
