"""Signs that a port speaks another protocol than the client: the wrong one of a server's two."""

import re
from typing import Final

from shortlist.clients import contract
from shortlist.clients.errors import WrongPort

__all__ = ["wrong_port"]

_REST_PORT: Final = f"the REST port ({contract.DEFAULT_REST_PORT} by default)"
_GRPC_PORT: Final = f"the gRPC port ({contract.DEFAULT_GRPC_PORT} by default)"

_SPEAKS_GRPC: Final = f"speaks gRPC, not REST; use GrpcClient (--transport grpc), or {_REST_PORT}"
_SPEAKS_REST: Final = f"speaks REST, not gRPC; use {_GRPC_PORT}, or RestClient (--transport rest)"
_SPEAKS_TLS: Final = "speaks TLS, and the client did not; pass tls=True (--tls)"
_NO_TLS: Final = "does not speak TLS; leave out tls (--tls, --ca, --certificate) and https://"

# What clients see there: the first bytes of the answer, or a message of their libraries. gRPC tells
# the fourth byte of the answer as the type of a frame.
_SIGNS: Final = (
    (r"^\0\0.\x04", _SPEAKS_GRPC),  # an HTTP/2 SETTINGS frame
    (r"http1\.x server", _SPEAKS_REST),
    (
        r"got frame type (3[2-9]|[4-9]\d|1[01]\d|12[0-6])\b",
        _SPEAKS_REST,
    ),  # printable, as in <!DOCTYPE
    (r"missing selected ALPN", _SPEAKS_REST),
    (r"^\x15\x03|got frame type 0\b", _SPEAKS_TLS),  # a TLS alert
    (r"plain HTTP request was sent to HTTPS port", _SPEAKS_TLS),  # nginx
    (r"HTTP request to an HTTPS server", _SPEAKS_TLS),  # servers written in Go
    (r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG", _NO_TLS),
)
_PATTERNS: Final = [(re.compile(sign, re.DOTALL), finding) for sign, finding in _SIGNS]


def wrong_port(address: str, reason: str) -> WrongPort | None:
    """Return the error for a port that speaks another protocol; `None` without a sign of that."""
    for pattern, finding in _PATTERNS:
        if pattern.search(reason):
            place = re.sub(r"^https?://", "", address)
            return WrongPort(f"{place} {finding}", received=repr(reason[:200]))
    return None
