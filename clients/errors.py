"""Errors of the clients, the same over REST and gRPC.

One table of gRPC codes and one of HTTP statuses map each failure to its class. Wrong arguments
raise `ValueError` before any socket opens.
"""

# ruff: noqa: N818 - the names say what happened, like those of gRPC and HTTP.

from typing import ClassVar, Final

from shortlist.clients._printable import printable

__all__ = [
    "DeadlineExceeded",
    "InvalidRequest",
    "LabelNotFound",
    "LoadFailed",
    "MissingOp",
    "Overloaded",
    "PermissionDenied",
    "ProtocolError",
    "ServableNotFound",
    "ServerError",
    "ServingError",
    "ShortlistError",
    "SignatureNotFound",
    "TooManyInFlight",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "WrongPort",
    "error_class_for_code",
    "error_class_for_http_status",
]


_MAX_TEXT: Final = 4000  # characters; names in an answer can be of any number and length


class ShortlistError(Exception):
    """Base of every error that names its remedy.

    Commands print it as one line on stderr and exit with status 1.
    """


class ServingError(ShortlistError):
    """Base of every error of a call.

    The message is one line: control characters of what the other side sent are escaped.

    Attributes:
        received: Answer of the other side, such as `HTTP 404: Servable not found …` or
            `NOT_FOUND: …`; `None` if there was none.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, received: str | None = None) -> None:
        super().__init__(_one_line(message))
        self.received = None if received is None else _one_line(received)


def _one_line(text: str) -> str:
    return printable(text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…")


class InvalidRequest(ServingError):
    """The server refused the request, or it is larger than the server takes; HTTP 400 or 413.

    INVALID_ARGUMENT, FAILED_PRECONDITION and OUT_OF_RANGE, which HTTP does not distinguish.
    """


class LabelNotFound(InvalidRequest):
    """No version of the model has the label."""


class SignatureNotFound(InvalidRequest):
    """The servable has no signature of that name."""


class ServableNotFound(ServingError):
    """The server has no such model or version: NOT_FOUND; HTTP 404."""


class MissingOp(ServableNotFound):
    """The servable needs an op that the server does not have, such as ScaNN's."""


class LoadFailed(ServingError):
    """The server tried to load the awaited version and gave up."""


class Unauthenticated(ServingError):
    """Credentials are missing or wrong: UNAUTHENTICATED; HTTP 401."""


class PermissionDenied(ServingError):
    """Credentials are not sufficient: PERMISSION_DENIED; HTTP 403."""


class Unsupported(ServingError):
    """The server or the transport does not support the call: UNIMPLEMENTED; HTTP 501."""


class Overloaded(ServingError):
    """The server has no capacity: RESOURCE_EXHAUSTED; HTTP 429.

    Raised at the deadline, or at once if retries are off.
    """

    retryable = True


class TooManyInFlight(Overloaded):
    """The client reached its own `max_in_flight`; nothing was sent."""

    retryable = False


class Unavailable(ServingError):
    """No server answered: refused, reset, UNAVAILABLE; HTTP 502 or 503."""

    retryable = True


class DeadlineExceeded(ServingError):
    """Time ran out: the call's own timeout, DEADLINE_EXCEEDED; HTTP 504."""

    retryable = True  # a server or proxy may give up before the call's own deadline


class ServerError(ServingError):
    """The server failed: INTERNAL, UNKNOWN, DATA_LOSS, ABORTED or similar; HTTP 500."""


class ProtocolError(ServingError):
    """The answer is not TensorFlow Serving's: not JSON, truncated, too large or misshapen."""


class WrongPort(ProtocolError):
    """The port speaks another protocol: gRPC instead of REST, or TLS instead of plain text."""


_BY_CODE: Final[dict[str, type[ServingError]]] = {
    "CANCELLED": ServerError,
    "UNKNOWN": ServerError,
    "INVALID_ARGUMENT": InvalidRequest,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": ServableNotFound,
    "ALREADY_EXISTS": ServerError,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": Overloaded,
    "FAILED_PRECONDITION": InvalidRequest,
    "ABORTED": ServerError,
    "OUT_OF_RANGE": InvalidRequest,
    "UNIMPLEMENTED": Unsupported,
    "INTERNAL": ServerError,
    "UNAVAILABLE": Unavailable,
    "DATA_LOSS": ServerError,
    "UNAUTHENTICATED": Unauthenticated,
}

_BY_HTTP_STATUS: Final[dict[int, type[ServingError]]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: ServableNotFound,
    408: DeadlineExceeded,
    429: Overloaded,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_class_for_code(code: str) -> type[ServingError]:
    """Return the class for the name of a gRPC status code; `ServerError` if it is unknown."""
    return _BY_CODE.get(code, ServerError)


def error_class_for_http_status(status: int) -> type[ServingError]:
    """Return the class for an HTTP status other than 200.

    Unlisted 4xx are `InvalidRequest`, unlisted 5xx `ServerError`. Anything else, such as a
    redirect, does not come from TensorFlow Serving: `ProtocolError`.
    """
    if status in _BY_HTTP_STATUS:
        return _BY_HTTP_STATUS[status]
    if 400 <= status < 500:
        return InvalidRequest
    if 500 <= status < 600:
        return ServerError
    return ProtocolError
