"""One HTTP connection: what has arrived and is parsed, what is still to be sent."""

import logging
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httptools

__all__ = [
    "REASONS",
    "BodyRoom",
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
    """What one client may ask for before it harms others.

    Attributes:
        max_body_bytes: Longer bodies are answered with 413.
        max_buffered_bytes: All bodies together; beyond it new ones are answered with 503.
        max_header_bytes: Request line and headers.
        max_connections: Open connections; the one idle longest gives way to a new one.
        request_seconds: Time a client has to send a whole request, and to take an answer.
        idle_seconds: Time a connection may stay open without a request.
    """

    max_body_bytes: int = 256 * 1024 * 1024
    max_buffered_bytes: int = 1024 * 1024 * 1024
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
        body: What follows the headers.
        headers: Besides Content-Length, Date and Connection.
        close: Whether the connection ends with it.
    """

    status: int
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)
    close: bool = False


def html_error(status: int) -> HttpResponse:
    """An error that arises before any handler is asked, as libevent words it."""
    reason = REASONS.get(status, "Error")
    page = (
        f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n"
        f"<H1>{reason}</H1>\n</BODY></HTML>\n"
    )
    return HttpResponse(
        status=status, body=page.encode(), headers=[("Content-Type", "text/html")], close=True
    )


class BodyRoom:
    """Memory that the bodies of all connections share."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Takes room for a part of a body, if there is any left."""
        with self._lock:
            if self._taken + size > self._limit:
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Gives room back."""
        if size:
            with self._lock:
                self._taken -= size


class Connection:
    """What is known of one client: the request being read, the answers not yet taken."""

    def __init__(self, sock: socket.socket, limits: HttpLimits, room: BodyRoom) -> None:
        self.sock = sock
        self._limits = limits
        self._room = room
        self.parser: Any = httptools.HttpRequestParser(self)
        self.complete: list[HttpRequest] = []
        self.unsent = b""
        self.closing = False
        self.lingering = False
        self.refusal: int | None = None
        self.since = time.monotonic()  # when the state that a deadline watches began
        self.receiving = False
        self.busy = False
        self._buffered = 0
        self.on_message_begin()

    # --- callbacks of the parser ---

    def on_message_begin(self) -> None:
        """Starts a request."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Takes a part of the target."""
        self._target += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header."""
        self._headers[name.lower()] = value
        self._count_header(len(name) + len(value))

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.max_header_bytes:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        """Looks whether the body that is announced may come."""
        expected = self._headers.get(b"content-length", b"")
        if expected.isdigit() and int(expected) > self._limits.max_body_bytes:
            self._refuse(413)
        elif self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.unsent += b"HTTP/1.1 100 Continue\r\n\r\n"

    def on_body(self, chunk: bytes) -> None:
        """Takes a part of the body, if there is room."""
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
        """Puts the request with those to be answered."""
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
        """Parses what arrived; `complete` and `refusal` hold what came of it."""
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
        """Gives back the room that bodies answered by now took."""
        self._room.give(self._buffered)
        self._buffered = 0
