"""One HTTP connection: its parsed requests and its unsent answers."""

import fcntl
import ipaddress
import logging
import socket
import struct
import termios
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal

import httptools

from shortlist.serving.embedded.api.interfaces import always_active
from shortlist.serving.embedded.api.limits import MIB, MemoryRoom, descriptor_share

__all__ = [
    "READ_BYTES",
    "REASONS",
    "Connection",
    "HttpLimits",
    "HttpRequest",
    "HttpResponse",
    "Phase",
    "html_error",
    "network_of",
]

log = logging.getLogger(__name__)

REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
READ_BYTES: Final = 64 * 1024
_SLICE_BYTES: Final = 4096  # parsed at a time outside of bodies: at most 150 pipelined requests
# Larger requests can take long: malformed JSON of 16 KiB 50 ms.
_LARGE_BYTES: Final = 16 * 1024
_UNCOUNTED_BYTES: Final = 4096  # a request head of this size is not worth a lock
_PARSED_BYTES: Final = 1024  # memory of one request without its body
_MOST_CONNECTIONS: Final = 16384


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """Limits that keep a client from harming others.

    Attributes:
        max_body_bytes: Maximum length of a body; longer ones are answered with 413.
        max_header_bytes: Maximum length of request line and headers.
        max_headers: Maximum number of headers.
        max_connections: Maximum number of connections; a new one replaces another of the client
            network that has most: the longest idle, or the oldest incomplete request or answer.
        stall_seconds: Time limit for sending the headers of a request, and the period in which a
            body or an answer must make progress.
        min_rate: Bytes per second that a body or an answer must move in each such period.
        idle_seconds: Time limit for a connection without a request.
    """

    max_body_bytes: int = 64 * MIB
    max_header_bytes: int = 64 * 1024
    max_headers: int = 100
    max_connections: int = field(
        default_factory=partial(descriptor_share, 2, most=_MOST_CONNECTIONS)
    )
    stall_seconds: float = 10.0
    min_rate: int = 1024
    idle_seconds: float = 300.0


@dataclass(kw_only=True, slots=True)
class HttpRequest:
    """One request.

    Attributes:
        method: Method, as sent.
        target: Target, as sent.
        headers: Headers by name in lower case; of equal ones the last.
        body: Body, as sent.
        keep_alive: Another request may follow on this connection.
        active: Returns False if the client has closed its side.
    """

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    active: Callable[[], bool] = always_active

    @property
    def large(self) -> bool:
        """True if answering can take long: a long body, or one that unzips to a long one."""
        return len(self.body) > _LARGE_BYTES or b"content-encoding" in self.headers


@dataclass(kw_only=True, slots=True)
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
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


def html_error(status: int) -> HttpResponse:
    """Return an error outside of the handler, with libevent's page."""
    reason = REASONS.get(status, "Error")
    page = (
        f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n"
        f"<H1>{reason}</H1>\n</BODY></HTML>\n"
    )
    return HttpResponse(
        status=status, body=page.encode(), headers=(("Content-Type", "text/html"),), close=True
    )


def network_of(address: str) -> str:
    """Return the part of a client's address that it cannot choose: all of IPv4, a /64 of IPv6."""
    if ":" not in address:
        return address
    number = ipaddress.IPv6Address(address.partition("%")[0])
    return str(number.ipv4_mapped or int(number) >> 64)


# What a connection waits for: a request, the rest of a request, a worker, the client to read
# answers, or the client to close after the last answer. Members of an Enum would cost a call each.
Phase = Literal["idle", "receiving", "waiting", "sending", "lingering"]


class Connection:
    """State of one client: the request that arrives, and the answers not yet sent.

    Only the thread that holds `claim` may use the connection or close it; any may call
    `is_overdue` and read `phase` and `reserved`.

    Attributes:
        network: See `network_of`.
        phase: What the connection waits for between two turns.
        since: Start of the phase.
        complete: Requests to answer.
        rest: Received data that is not parsed yet.
        unsent: Parts of answers that wait to be sent.
        unsent_bytes: Their length.
        refusal: Status of the answer to a request that is not served.
        invites: The client waits for `100 Continue`.
        closing: The last answer has been given.
        placed: One of the places for large requests is reserved for this connection.
    """

    def __init__(
        self,
        sock: socket.socket,
        network: str,
        limits: HttpLimits,
        room: MemoryRoom,
        make_room: Callable[[], bool],
    ) -> None:
        self.sock = sock
        self.network = network
        self.claim = threading.Lock()
        self._limits = limits
        self._most_bytes = limits.max_header_bytes
        self._most_headers = limits.max_headers
        self._room = room
        self._make_room = make_room
        self._parser: Any = httptools.HttpRequestParser(self)
        self.phase: Phase = "idle"
        self.since = 0.0
        self.complete: deque[HttpRequest] = deque()
        self.rest: bytes | memoryview = b""
        self.unsent: list[bytes | memoryview] = []
        self.unsent_bytes = 0
        self.refusal: int | None = None
        self.invites = False
        self.closing = False
        self.placed = False
        self._receiving = False
        self._moved = 0  # bytes in both directions
        self._mark = (0.0, 0)  # start of the period in which bytes must move, and `_moved` then
        self._bodies = 0  # reserved memory: bodies of requests, and everything else
        self._others = 0
        self.on_message_begin()

    # --- callbacks of the parser ---

    def on_message_begin(self) -> None:
        """Start a request."""
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes | bytearray] = []
        self._body_bytes = 0
        self._body_left = 0
        self._header_bytes = 0
        self._in_body = False
        self._receiving = True
        self._pending_bytes = 0

    def _progress(self) -> None:
        self._receiving = True
        self._pending_bytes = 0  # parsed since the last callback

    def on_url(self, url: bytes) -> None:
        """Add a part of the target."""
        self._target += url
        self._header_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; those after the body are counted, but do not apply."""
        headers = self._headers
        if not self._in_body:
            headers[name.lower()] = value
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._most_bytes or len(headers) > self._most_headers:
            self.refuse(431)

    def on_headers_complete(self) -> None:
        """Refuse a body that is too long, or invite it."""
        self._in_body = True
        self._receiving = True
        self._pending_bytes = 0
        if self._header_bytes > self._most_bytes:  # without headers, nothing else has looked
            self.refuse(431)
        headers = self._headers
        expected = headers.get(b"content-length")
        self._body_left = int(expected) if expected and expected.isdigit() else 0
        if self._body_left > self._limits.max_body_bytes:
            self.refuse(413)
        elif b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            self.invites = True

    def on_body(self, chunk: bytes) -> None:
        """Add a part of the body, within the limits."""
        if self.refusal is not None:
            return
        self._progress()
        size = len(chunk)
        self._body_bytes += size
        self._body_left -= size
        if self._body_bytes > self._limits.max_body_bytes:
            self.refuse(413)
        elif not self._take(size):
            self.refuse(429)
        elif size < 1024 and self._chunks:  # an object of its own would take more memory
            if not isinstance(self._chunks[-1], bytearray):
                self._chunks.append(bytearray())
            self._chunks[-1] += chunk
        else:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Add the request to those to be answered."""
        self._receiving = self.invites = False
        if self.refusal is not None:
            return
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self.complete.append(
            HttpRequest(
                method=self._parser.get_method(),
                target=self._target,
                headers=self._headers,
                body=bytes(body),
                keep_alive=self._parser.should_keep_alive(),
                active=self.is_active,
            )
        )

    # --- for the server ---

    def refuse(self, status: int) -> None:
        """Answer with this status instead of serving the request, and close."""
        if self.refusal is None:
            self.refusal = status
        self._drop(sum(len(request.body) for request in self.complete))

    def _drop(self, bodies: int = 0) -> None:
        """Forget the unfinished request; release all memory for bodies but this."""
        self._chunks = []
        self.rest = b""
        self._room.give(self._bodies - bodies)
        self._bodies = bodies

    def finish(self) -> None:
        """Close after the answers given so far."""
        self.closing = True
        self.complete.clear()
        self._drop()

    def feed(self, data: bytes) -> None:
        """Parse received data, up to the first complete request or refusal."""
        self._moved += len(data)
        self._receiving = True
        self.rest = data
        self.parse()

    def parse(self) -> None:
        """Parse more of `rest`."""
        view, self.rest = self.rest, b""
        while view and not self.complete and self.refusal is None:
            size = max(_SLICE_BYTES, self._body_left)
            if len(view) <= size:
                self._parse(view)
                return
            view = memoryview(view)
            self._parse(view[:size])
            view = view[size:]
        if self.refusal is None:
            self.rest = view

    def _parse(self, data: bytes | memoryview) -> None:
        self._pending_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserInvalidMethodError, httptools.HttpParserUpgrade):
            self.refuse(501)
        except httptools.HttpParserError as exc:
            log.debug("unreadable request: %s", exc)
            self.refuse(400)
        # An unfinished line is with the parser, which copies it for each part.
        if self._pending_bytes > self._limits.max_header_bytes + _SLICE_BYTES:
            self.refuse(431)

    def rest_idle(self, now: float) -> bool:
        """Note that the connection waits for a request; False if it does not, or holds memory."""
        if (
            self._receiving
            or self._others
            or self.unsent
            or self.closing
            or self.complete
            or self.rest
        ):
            return False
        self.phase = "idle"
        self.since = now
        return True

    def settle(self, now: float) -> None:
        """Note what the connection waits for after a turn."""
        if self.unsent:
            phase: Phase = "sending"
        elif self.closing:
            phase = "lingering"
        elif self.complete or self.rest:
            phase = "waiting"
        else:
            phase = "receiving" if self._receiving else "idle"
        if phase != self.phase or phase == "idle":
            self.phase = phase
            self.since = now
            self._mark = (now, self._arrived())

    def answered(self, request: HttpRequest) -> None:
        """Restart the time limits after an answer, and release the memory of the body."""
        self.phase = "waiting"
        size = len(request.body)
        self._bodies -= size
        self._room.give(size)

    def sent(self, size: int) -> None:
        """Remove the first bytes from `unsent`."""
        self._moved += size
        self.unsent_bytes -= size
        if not self.unsent_bytes:
            self.unsent = []
            return
        while size >= len(self.unsent[0]):
            size -= len(self.unsent.pop(0))
        self.unsent[0] = memoryview(self.unsent[0])[size:]

    def is_active(self) -> bool:
        """Return False if the client has closed its side, and so waits for no answer."""
        try:
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def is_overdue(self, now: float) -> bool:
        """Return True if the client has exceeded a time limit."""
        match self.phase:
            case "waiting":
                return False
            case "idle":
                return now - self.since > self._limits.idle_seconds
            case "lingering":
                return now - self.since > self._limits.stall_seconds / 2
        start, moved = self._mark
        if now - start <= self._limits.stall_seconds:
            return False
        if self.phase == "receiving" and not self._in_body:
            return True
        self._mark = (now, self._arrived())
        return self._mark[1] - moved < self._limits.min_rate * (now - start)

    def _arrived(self) -> int:
        """Return the bytes in both directions without those that the system has not sent yet."""
        if self.phase != "sending":
            return self._moved
        queued: int = struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))[0]
        return self._moved - queued

    # --- memory ---

    @property
    def reserved(self) -> int:
        """Bytes that the connection has taken from the memory for requests."""
        return self._bodies + self._others

    def _take(self, size: int) -> bool:
        """Reserve memory for a part of a body.

        The last quarter is for small bodies: a few clients with large ones stop no other.
        """
        room = self._room
        small = self._body_bytes <= _LARGE_BYTES
        while (not small and 0 < room.limit * 3 // 4 < room.taken + size) or not room.take(size):
            if not self._make_room():
                return False
        self._bodies += size
        return True

    def hold(self, answer_bytes: int = 0) -> bool:
        """Adjust the reserved memory to everything but bodies; False if there is not enough."""
        needed = self.unsent_bytes + answer_bytes + _PARSED_BYTES * len(self.complete)
        if self.rest:
            needed += READ_BYTES
        if self._receiving:
            head = self._header_bytes + self._pending_bytes
            needed += head if head > _UNCOUNTED_BYTES else 0
        more = needed - self._others
        if more < 0:
            self._room.give(-more)
        while more > 0 and not self._room.take(more):
            if not self._make_room():
                return False
        self._others = needed
        return True

    def release(self) -> None:
        """Release all memory."""
        self._room.give(self._bodies + self._others)
        self._bodies = self._others = 0
