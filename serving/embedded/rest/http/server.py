"""A small HTTP/1.1 server: httptools parses, epoll waits, a few threads do the rest.

Each worker takes a connection with new data, reads it, answers it and returns it to epoll.
A request never changes threads, which would cost more than most requests do, and connections
that are idle, slow or half-way through a body occupy memory but no thread.
"""

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from shortlist.serving.embedded.api.limits import MemoryRoom
from shortlist.serving.embedded.rest.http.connection import (
    REASONS,
    Connection,
    HttpLimits,
    HttpRequest,
    HttpResponse,
    html_error,
)

__all__ = ["HttpServer"]

log = logging.getLogger(__name__)

_READ_BYTES: Final = 256 * 1024
_READS_PER_TURN: Final = 16  # then other connections have their turn
_READ_EVENTS: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
_WRITE_EVENTS: Final = select.EPOLLOUT | select.EPOLLONESHOT
_POLL_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 5.0

Handler = Callable[[HttpRequest], HttpResponse]


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
        self._stopping = False
        self._ended = False
        self._swept = time.monotonic()
        self._date = (0, "")
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
            connection.busy
            or connection.unsent
            or (connection.receiving and not connection.lingering)
            for connection in list(self._connections.values())
        )

    def _work(self) -> None:
        listener = self._listener.fileno()
        while not self._ended:
            try:
                events = self._epoll.poll(_POLL_SECONDS, 1)
            except (OSError, ValueError):  # closed
                return
            for descriptor, event in events:
                if descriptor == listener:
                    self._accept()
                    continue
                connection = self._connections.get(descriptor)
                if connection is not None:
                    self._guarded_turn(connection, event)
            if time.monotonic() - self._swept > _POLL_SECONDS:
                self._sweep()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            sock = None
        with contextlib.suppress(OSError, ValueError):
            self._epoll.modify(self._listener, select.EPOLLIN | select.EPOLLONESHOT)
        if sock is None:
            return
        if len(self._connections) >= self.limits.max_connections and not self._evict():
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self.limits, self._room)
        self._connections[sock.fileno()] = connection
        try:
            self._epoll.register(sock, _READ_EVENTS)
        except (OSError, ValueError):  # another worker has evicted the connection
            self._close(connection)

    def _evict(self) -> bool:
        """Close the connection that has been idle longest."""
        idle = [
            connection
            for connection in list(self._connections.values())
            if not (connection.busy or connection.receiving or connection.unsent)
        ]
        if not idle:
            return False
        self._close(min(idle, key=lambda connection: connection.since))
        return True

    def _sweep(self) -> None:
        """Close connections that exceed a time limit."""
        with self._lock:
            now = time.monotonic()
            if now - self._swept <= _POLL_SECONDS:
                return
            self._swept = now
        for connection in list(self._connections.values()):
            waiting = connection.receiving or connection.unsent
            limit = self.limits.request_seconds if waiting else self.limits.idle_seconds
            if connection.lingering:
                limit = min(limit, _LINGER_SECONDS)
            if not connection.busy and now - connection.since > limit:
                self._close(connection)

    def _guarded_turn(self, connection: Connection, event: int) -> None:
        connection.busy = True
        try:
            self._turn(connection, event)
        except OSError:
            self._close(connection)
        except Exception:
            log.exception("a request ended in an internal error")
            self._close(connection)
        finally:
            connection.busy = False

    def _turn(self, connection: Connection, event: int) -> None:
        """Serve a connection as far as possible without waiting."""
        if connection.lingering:
            self._linger(connection)
            return
        if connection.unsent and event & select.EPOLLOUT:
            self._send(connection)
        elif event & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            if not self._read(connection):
                return
            self._answer(connection)
        if connection.sock.fileno() < 0:
            return
        if connection.closing and not connection.unsent:
            # Closing with unread data would reset the connection, and the client might never
            # see the answer: so shut down only our side and wait for the client's.
            connection.lingering = connection.receiving = True
            connection.sock.shutdown(socket.SHUT_WR)
        events = _WRITE_EVENTS if connection.unsent else _READ_EVENTS
        self._epoll.modify(connection.sock, events)

    def _linger(self, connection: Connection) -> None:
        """Drop data that a client sends after its last answer."""
        for _ in range(_READS_PER_TURN):
            try:
                if not connection.sock.recv(_READ_BYTES):
                    self._close(connection)
                    return
            except (BlockingIOError, InterruptedError):
                break
        self._epoll.modify(connection.sock, _READ_EVENTS)

    def _read(self, connection: Connection) -> bool:
        """Read the available data; False if the connection has ended."""
        for _ in range(_READS_PER_TURN):
            try:
                data = connection.sock.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return True
            if not data:
                self._close(connection)
                return False
            connection.feed(data)
            if len(data) < _READ_BYTES or connection.complete or connection.refusal:
                return True
        return True

    def _answer(self, connection: Connection) -> None:
        out = [connection.unsent] if connection.unsent else []
        for request in connection.complete:
            try:
                response = self._handler(request)
            except Exception:
                log.exception("answering %r failed", request.target[:200])
                response = html_error(500)
            keep = request.keep_alive and not response.close and not self._stopping
            out.append(self._head(response, keep=keep))
            if request.method != b"HEAD":
                out.append(response.body)
            if not keep:
                connection.closing = True
                break
        if connection.complete:
            connection.complete = []
            connection.free_bodies()
            connection.since = time.monotonic()
        if connection.refusal is not None and not connection.closing:
            refused = html_error(connection.refusal)
            out += (self._head(refused, keep=False), refused.body)
            connection.closing = True
            connection.free_bodies()
        if out:
            connection.unsent = out[0] if len(out) == 1 else b"".join(out)
            self._send(connection)

    def _send(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.unsent)
        except (BlockingIOError, InterruptedError):
            return
        if sent == len(connection.unsent):
            connection.unsent = b""
        else:
            connection.unsent = connection.unsent[sent:]
        connection.since = time.monotonic()

    def _head(self, response: HttpResponse, *, keep: bool) -> bytes:
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
        return (
            f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}\r\n"
            f"{headers}Content-Length: {len(response.body)}\r\nDate: {self._date[1]}\r\n"
            f"{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n"
        ).encode("latin-1", "replace")

    def _close(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        if descriptor < 0:
            return
        self._connections.pop(descriptor, None)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(connection.sock)
        connection.sock.close()
        connection.free_bodies()
