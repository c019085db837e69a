"""One HTTP connection: its parsed requests and its unsent answers."""

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httptools

from shortlist.serving.embedded.api.limits import MIB, MemoryRoom

__all__ = [
    "REASONS",
    "Connection",
    "HttpLimits",
    "HttpRequest",
    "HttpResponse",
    "html_error",
]

log = logging.getLogger(__name__)

REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """Limits that keep a client from harming others.

    Attributes:
        max_body_bytes: Maximum length of a body; longer ones are answered with 413.
        max_header_bytes: Maximum length of request line and headers.
        max_connections: Maximum number of connections; a new one replaces the longest idle.
        request_seconds: Time limit for sending a whole request, and for receiving an answer.
        idle_seconds: Time limit for a connection without a request.
    """

    max_body_bytes: int = 64 * MIB
    max_header_bytes: int = 64 * 1024
    max_connections: int = 1024
    request_seconds: float = 60.0
    idle_seconds: float = 300.0


@dataclass(kw_only=True)
class HttpRequest:
    """One request; header names are in lower case."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, kw_only=True)
class HttpResponse:
    """One answer.

    Attributes:
        status: HTTP status code.
        body: Body of the answer.
        headers: Headers other than Content-Length, Date and Connection.
        close: Close the connection after this answer.
    """

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)
    close: bool = False


def html_error(status: int) -> HttpResponse:
    """Return an error outside of the handler, with libevent's page."""
    reason = REASONS.get(status, "Error")
    page = (
        f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n"
        f"<H1>{reason}</H1>\n</BODY></HTML>\n"
    )
    return HttpResponse(
        status=status, body=page.encode(), headers=[("Content-Type", "text/html")], close=True
    )


class Connection:
    """State of one client: the request that arrives, and the answers not yet sent."""

    def __init__(self, sock: socket.socket, limits: HttpLimits, room: MemoryRoom) -> None:
        self.sock = sock
        self._limits = limits
        self._room = room
        self.parser: Any = httptools.HttpRequestParser(self)
        self.complete: list[HttpRequest] = []
        self.unsent = b""
        self.closing = False
        self.lingering = False
        self.refusal: int | None = None
        self.since = time.monotonic()  # start of the state that a time limit applies to
        self.receiving = False
        self.busy = False
        self._buffered = 0
        self.on_message_begin()

    # --- callbacks of the parser ---

    def on_message_begin(self) -> None:
        """Start a request."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Add a part of the target."""
        self._target += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        self._headers[name.lower()] = value
        self._count_header(len(name) + len(value))

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.max_header_bytes:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        """Refuse a body that is too long, or invite it."""
        expected = self._headers.get(b"content-length", b"")
        if expected.isdigit() and int(expected) > self._limits.max_body_bytes:
            self._refuse(413)
        elif self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.unsent += b"HTTP/1.1 100 Continue\r\n\r\n"

    def on_body(self, chunk: bytes) -> None:
        """Add a part of the body, within the limits."""
        if self.refusal is not None:
            return
        self._body_bytes += len(chunk)
        if self._body_bytes > self._limits.max_body_bytes:
            self._refuse(413)
        elif not self._room.take(len(chunk)):
            self._refuse(503)
        else:
            self._buffered += len(chunk)
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Add the request to those to be answered."""
        if self.refusal is not None:
            return
        chunks = self._chunks
        self.complete.append(
            HttpRequest(
                method=self.parser.get_method(),
                target=self._target,
                headers=self._headers,
                body=chunks[0] if len(chunks) == 1 else b"".join(chunks),
                keep_alive=self.parser.should_keep_alive(),
            )
        )
        self._chunks = []
        self.receiving = False

    def _refuse(self, status: int) -> None:
        if self.refusal is None:
            self.refusal = status
        self._chunks = []

    # --- for the server ---

    def feed(self, data: bytes) -> None:
        """Parse received data into `complete` or `refusal`."""
        if not self.receiving:
            self.receiving = True
            self.since = time.monotonic()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501)
        except httptools.HttpParserUpgrade:
            self._refuse(501)
        except httptools.HttpParserError as exc:
            log.debug("unreadable request: %s", exc)
            self._refuse(400)

    def free_bodies(self) -> None:
        """Release the memory of answered bodies."""
        self._room.give(self._buffered)
        self._buffered = 0
