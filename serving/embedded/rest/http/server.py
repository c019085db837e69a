"""A small HTTP/1.1 server: httptools parses, epoll waits, a few threads do the rest.

Each worker takes a connection with new data, reads it, answers it and returns it to epoll.
A request never changes threads, which would cost more than most requests do, and connections
that are idle, slow or half-way through a body occupy memory but no thread.

Large requests take only half of the threads: small ones are answered in between. If
connections or memory run out, clients that hold most of them and make others wait are closed.
"""

import contextlib
import logging
import select
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from itertools import islice
from typing import Final

from shortlist.serving.embedded.api.limits import MemoryRoom
from shortlist.serving.embedded.rest.http.connection import (
    READ_BYTES,
    REASONS,
    Connection,
    HttpLimits,
    HttpRequest,
    HttpResponse,
    html_error,
    network_of,
)

__all__ = ["HttpServer"]

log = logging.getLogger(__name__)

_READS_PER_TURN: Final = 16  # then other connections have their turn
_ANSWERS_PER_TURN: Final = 8
_BATCH_BYTES: Final = 64 * 1024  # answers to pipelined requests are sent together up to here
_READ_EVENTS: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_WRITE_EVENTS: Final = select.EPOLLOUT | select.EPOLLONESHOT
_PLACE: Final = 0
_POLL_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.1  # without descriptors
_WARNING_SECONDS: Final = 60.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_MEMORY: Final = HttpResponse(
    status=429,
    body=b'{\n    "error": "memory for requests is used up (--request_memory_mb); try again"\n}',
    headers=(("Content-Type", "application/json"),),
    close=True,
)

Handler = Callable[[HttpRequest], HttpResponse]


@lru_cache(256)
def _head_start(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the status line and the headers that are the same for many answers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n{lines}".encode(
        "latin-1", "replace"
    )


class HttpServer:
    """A running HTTP server.

    Attributes:
        port: Port of the server.
        limits: Limits for clients.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str,
        port: int,
        threads: int,
        limits: HttpLimits,
        room: MemoryRoom,
    ) -> None:
        """Open the port and start the threads.

        Raises:
            OSError: The server cannot listen on this address.
        """
        self._handler = handler
        self.limits = limits
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server(
            (host, port), family=family, backlog=1024, dualstack_ipv6=host == "::"
        )
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN | select.EPOLLONESHOT)
        self._connections: dict[int, Connection] = {}
        self._lock = threading.Lock()
        self._room = room
        self._places = max(1, threads // 2)  # for large requests
        self._queue: deque[Connection] = deque()
        self._stopping = False
        self._ended = False
        self._paused_until: float | None = None
        self._warned = -_WARNING_SECONDS
        self._swept = time.monotonic()
        self._date = (0, b"")
        self._threads = [
            threading.Thread(target=self._work, name=f"rest-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, grace: float | None = None) -> None:
        """Stop taking requests and wait up to `grace` seconds for those in flight."""
        self._stopping = True
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(self._listener)
        self._listener.close()
        deadline = time.monotonic() + (grace or 0.0)
        while time.monotonic() < deadline and self._in_flight():
            time.sleep(0.01)
        self._ended = True
        for thread in self._threads:
            thread.join(_POLL_SECONDS + 1.0)
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()

    def _in_flight(self) -> bool:
        return any(
            connection.claim.locked() or connection.phase not in ("idle", "lingering")
            for connection in list(self._connections.values())
        )

    def _work(self) -> None:
        listener = self._listener.fileno()
        while not self._ended:
            try:
                paused = self._paused_until is not None
                events = self._epoll.poll(_PAUSE_SECONDS if paused else _POLL_SECONDS, 1)
            except (OSError, ValueError):  # closed
                return
            for descriptor, _ in events:
                if descriptor == listener:
                    self._accept()
                    continue
                connection = self._connections.get(descriptor)
                if connection is not None:
                    self._guarded_turn(connection)
            now = time.monotonic()
            if self._paused_until is not None and now > self._paused_until:
                self._paused_until = None
                self._listen()
            if now - self._swept > _POLL_SECONDS:
                self._sweep()

    # --- connections come and go ---

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._epoll.modify(self._listener, select.EPOLLIN | select.EPOLLONESHOT)

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            self._listen()
            return
        except OSError as exc:  # no descriptor or memory for a socket
            if self._stopping:
                return
            self._warn_of_shortage(exc)
            if self._evict(lambda _: 1, share=64):
                self._listen()
            else:
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
            return
        self._listen()
        full = len(self._connections) >= self.limits.max_connections
        if full and not self._evict(lambda _: 1, share=64):
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(
            sock, network_of(address[0]), self.limits, self._room, self._make_room
        )
        connection.settle(time.monotonic())
        self._connections[sock.fileno()] = connection
        try:
            self._epoll.register(sock, _READ_EVENTS)
        except (OSError, ValueError):  # evicted already, or too many for this system
            self._close_unclaimed(connection)

    def _warn_of_shortage(self, exc: OSError) -> None:
        now = time.monotonic()
        if now - self._warned > _WARNING_SECONDS:
            self._warned = now
            log.warning(
                "cannot accept a connection with %d open: %s; closing idle ones. Raise the limit "
                "of open files (ulimit -n)",
                len(self._connections),
                exc,
            )

    def _make_room(self) -> bool:
        return self._evict(lambda connection: connection.reserved)

    def _evict(self, weight: Callable[[Connection], int], share: int | None = None) -> bool:
        """Close connections of the client network with the greatest weight.

        First the longest idle, then the oldest incomplete request or answer. A connection whose
        request is being answered stays.

        Args:
            weight: Weight of a connection; without weight it stays, too.
            share: Close one of so many connections at a time, since each search looks at all;
                None for one.
        """
        totals: defaultdict[str, int] = defaultdict(int)
        networks: defaultdict[str, list[Connection]] = defaultdict(list)
        everyone = list(self._connections.values())
        for connection in everyone:
            if connection.phase != "waiting" and (size := weight(connection)):
                totals[connection.network] += size
                networks[connection.network].append(connection)
        wanted = max(1, len(everyone) // share) if share else 1
        for network in sorted(totals, key=totals.__getitem__, reverse=True):
            victims = networks[network]
            victims.sort(key=lambda each: (each.phase != "idle", each.since))
            closed = filter(self._close_unclaimed, victims)
            if list(islice(closed, wanted)):
                return True
        return False

    def _close_unclaimed(self, connection: Connection) -> bool:
        """Close a connection unless another thread uses it, or has closed it."""
        if not connection.claim.acquire(blocking=False):
            return False
        try:
            return self._close(connection)
        finally:
            connection.claim.release()

    def _close(self, connection: Connection) -> bool:
        descriptor = connection.sock.fileno()
        if descriptor < 0:
            return False
        self._connections.pop(descriptor, None)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(connection.sock)
        connection.sock.close()
        connection.release()
        self._leave(connection)
        return True

    def _sweep(self) -> None:
        """Close connections that exceed a time limit."""
        with self._lock:
            now = time.monotonic()
            if now - self._swept <= _POLL_SECONDS:
                return
            self._swept = now
        for connection in list(self._connections.values()):
            with contextlib.suppress(OSError, ValueError):  # another thread has closed it
                if connection.is_overdue(now):
                    self._close_unclaimed(connection)

    # --- one turn of a connection ---

    def _guarded_turn(self, connection: Connection) -> None:
        # If another worker has it, this event was that of an earlier socket of the same number.
        if not connection.claim.acquire(blocking=False):
            return
        events = None
        try:
            if connection.sock.fileno() >= 0:
                events = self._turn(connection)
        except OSError:
            self._close(connection)
        except Exception:
            log.exception("a request ended in an internal error")
            self._close(connection)
        finally:
            connection.claim.release()
        # Only now, since another worker may get the next event at once.
        if events == _PLACE:
            self._park(connection)
        elif events is not None:
            self._wait(connection, events)

    def _wait(self, connection: Connection, events: int) -> bool:
        """Return the connection to epoll; False if it has been closed."""
        try:
            self._epoll.modify(connection.sock, events)
        except (OSError, ValueError):
            return False
        return True

    def _turn(self, connection: Connection) -> int | None:
        """Serve a connection as far as possible without waiting.

        Returns:
            Events to wait for; `_PLACE` if its request is large and has to wait for a place;
            None if the connection is closed.
        """
        if connection.phase == "lingering":
            return self._linger(connection)
        if connection.unsent:
            self._send(connection)
        reads, answers = _READS_PER_TURN, _ANSWERS_PER_TURN
        while not (connection.unsent or connection.closing):
            if connection.complete or connection.refusal is not None:
                if answers <= 0:
                    break
                if connection.complete and not self._enter(connection):
                    return _PLACE if self._settle(connection) else None
                answers -= self._answer(connection, answers)
            elif connection.rest:
                connection.parse()
            elif connection.invites:
                connection.invites = False
                self._enqueue(connection, [_CONTINUE])
            elif not reads:
                break
            else:
                size = self._read(connection)
                if not size:
                    self._close(connection)
                    return None
                reads = reads - 1 if size == READ_BYTES else 0
        if connection.rest_idle(time.monotonic()):
            return _READ_EVENTS
        if not self._settle(connection):
            return None
        waits = connection.unsent or connection.complete or connection.rest
        return _WRITE_EVENTS if waits else _READ_EVENTS

    def _settle(self, connection: Connection) -> bool:
        """End a turn; False if there is no memory for what the connection holds."""
        if connection.closing and not connection.unsent:
            # Closing with unread data would reset the connection, and the client might never
            # see the answer: so shut down only our side and wait for the client's.
            connection.sock.shutdown(socket.SHUT_WR)
        if not connection.hold():
            self._close(connection)
            return False
        connection.settle(time.monotonic())
        return True

    def _linger(self, connection: Connection) -> int | None:
        """Drop data that a client sends after its last answer."""
        for _ in range(_READS_PER_TURN):
            try:
                if not connection.sock.recv(READ_BYTES):
                    self._close(connection)
                    return None
            except (BlockingIOError, InterruptedError):
                break
        return _READ_EVENTS

    def _read(self, connection: Connection) -> int | None:
        """Read available data; return its length, 0 at the end, or -1 if there is none."""
        try:
            data = connection.sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return -1
        if data:
            connection.feed(data)
        return len(data)

    def _answer(self, connection: Connection, most: int) -> int:
        """Answer requests until a large one or many bytes; return their number."""
        out: list[bytes | memoryview] = []
        count = size = 0
        while connection.complete and count < most and size <= _BATCH_BYTES:
            if count and connection.complete[0].large:
                break
            request = connection.complete.popleft()
            response = self._respond(request)
            connection.answered(request)
            body = b"" if request.method == b"HEAD" else response.body
            if len(body) > _BATCH_BYTES and not connection.hold(len(body)):
                response, body = _NO_MEMORY, _NO_MEMORY.body
            keep = request.keep_alive and not response.close and not self._stopping
            out += (self._head(response, keep=keep), body)
            count += 1
            size += len(body)
            if not keep:
                connection.finish()
        if connection.placed:
            self._leave(connection)
        if connection.refusal is not None and not (connection.closing or connection.complete):
            status = connection.refusal
            refused = _NO_MEMORY if status == _NO_MEMORY.status else html_error(status)
            out += (self._head(refused, keep=False), refused.body)
            connection.finish()
        self._enqueue(connection, out)
        return count

    def _respond(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._handler(request)
        except Exception:
            log.exception("answering %r failed", request.target[:200])
            return html_error(500)

    def _enqueue(self, connection: Connection, out: list[bytes | memoryview]) -> None:
        size = sum(map(len, out))
        # Joining large answers would copy them.
        connection.unsent = [b"".join(out)] if size <= _BATCH_BYTES else list(filter(None, out))
        connection.unsent_bytes = size
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        parts = connection.unsent
        try:
            # Some systems take no more than 1024 parts at a time.
            size = (
                connection.sock.send(parts[0])
                if len(parts) == 1
                else connection.sock.sendmsg(parts[:64])
            )
        except (BlockingIOError, InterruptedError):
            return
        connection.sent(size)

    def _head(self, response: HttpResponse, *, keep: bool) -> bytes:
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True).encode())
        return b"%bContent-Length: %d\r\nDate: %b\r\n%b\r\n" % (
            _head_start(response.status, response.headers),
            len(response.body),
            self._date[1],
            b"" if keep else b"Connection: close\r\n",
        )

    # --- places for large requests ---

    def _enter(self, connection: Connection) -> bool:
        """Return True if the next request is small, or get it a place."""
        if connection.placed or not connection.complete[0].large:
            return True
        with self._lock:
            connection.placed = self._places > 0
            self._places -= connection.placed
        return connection.placed

    def _park(self, connection: Connection) -> None:
        """Let a connection wait for a place; no thread may have it claimed."""
        with self._lock:
            if not self._places:
                self._queue.append(connection)
                return
            self._places -= 1
            connection.placed = True
        self._resume(connection)

    def _leave(self, connection: Connection) -> None:
        """Give the place of a connection, if it has one, to the next."""
        if not connection.placed:
            return
        connection.placed = False
        with self._lock:
            if not self._queue:
                self._places += 1
                return
            successor = self._queue.popleft()
            successor.placed = True
        self._resume(successor)

    def _resume(self, connection: Connection) -> None:
        if not self._wait(connection, _WRITE_EVENTS):  # which come at once
            self._leave(connection)
