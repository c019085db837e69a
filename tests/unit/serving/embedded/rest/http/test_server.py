"""The HTTP server with slow, greedy, broken and many clients."""

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shortlist.serving.embedded.api.limits import MemoryRoom
from shortlist.serving.embedded.rest.http.connection import HttpLimits, HttpRequest, HttpResponse
from shortlist.serving.embedded.rest.http.server import HttpServer
from tests.support.waiting import wait_until

LIMITS = HttpLimits(
    max_body_bytes=1_000_000,
    max_header_bytes=8_000,
    max_connections=20,
    stall_seconds=3.0,
    idle_seconds=60.0,
)


class Echo:
    """Answers with the request's body; requests for `/slow` can be held back."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.hold = threading.Event()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.target == b"/slow":
            self.entered.set()
            self.hold.wait(20)
        if request.target == b"/fail":
            raise RuntimeError("a bug in the handler")
        if request.target == b"/large":
            return HttpResponse(status=200, body=b"x" * 30_000_000)
        return HttpResponse(status=200, body=request.method + b" " + request.body)


@contextmanager
def running(handler: Echo | None = None, threads: int = 2) -> Iterator[HttpServer]:
    server = HttpServer(
        handler or Echo(),
        host="127.0.0.1",
        port=0,
        threads=threads,
        limits=LIMITS,
        room=MemoryRoom(3_000_000),
    )
    try:
        yield server
    finally:
        server.stop(0.0)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with running() as started:
        yield started


def connect(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def received(sock: socket.socket, enough: bytes | None = None) -> bytes:
    """Receive until the connection ends, or until `enough` has arrived."""
    data = b""
    while chunk := sock.recv(1 << 20):
        data += chunk
        if enough is not None and enough in data:
            break
    return data


def asked(server: HttpServer, text: bytes) -> bytes:
    with connect(server) as sock:
        sock.sendall(text)
        return received(sock)


def post(body: bytes, target: bytes = b"/", headers: bytes = b"Connection: close\r\n") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (
        target,
        headers,
        len(body),
        body,
    )


def is_closed(server: HttpServer) -> bool:
    try:
        connect(server).close()
    except ConnectionError:  # refused, or accepted and reset
        return True
    return False


def answers(server: HttpServer) -> bool:
    return asked(server, post(b"hello")).endswith(b"POST hello")


def test_connection_is_kept_and_requests_can_arrive_in_pieces_or_together(
    server: HttpServer,
) -> None:
    with connect(server) as sock:
        for byte in post(b"one", headers=b""):
            sock.send(bytes((byte,)))
        assert received(sock, b"POST one").startswith(b"HTTP/1.1 200 OK\r\n")
        sock.sendall(post(b"two", headers=b"") + post(b"three"))
        both = received(sock)
        assert both.index(b"POST two") < both.index(b"POST three")
        assert b"Connection: close" in both


def test_chunked_body_and_100_continue(server: HttpServer) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    assert asked(server, head + b"\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").endswith(b"POST abcde")
    with connect(server) as sock:
        text = post(b"x" * 10, headers=b"Connection: close\r\nExpect: 100-continue\r\n")
        head, _, body = text.partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")
        assert received(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert received(sock).endswith(b"POST " + b"x" * 10)


def test_head_request_gets_no_body(server: HttpServer) -> None:
    answer = asked(server, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"NOSUCH / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00", 501),
        (b"GET / HTTP/1.1\r\nbroken header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 9_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 1000001\r\n\r\n", 413),
        (b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ],
)
def test_invalid_request_gets_its_status_and_others_are_answered(
    server: HttpServer, text: bytes, status: int
) -> None:
    assert asked(server, text).startswith(b"HTTP/1.1 %d " % status)
    assert answers(server)


def test_endless_chunked_body_is_refused(server: HttpServer) -> None:
    with connect(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            sock.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        assert received(sock).startswith(b"HTTP/1.1 413 ")
    assert answers(server)


def is_refused(sock: socket.socket) -> bool:
    sock.settimeout(0.05)
    try:
        return sock.recv(100).startswith(b"HTTP/1.1 503 ")
    except TimeoutError:
        return False


def test_bodies_of_many_clients_together_are_limited(server: HttpServer) -> None:
    halves = []
    for _ in range(5):
        sock = connect(server)
        sock.sendall(post(b"x" * 900_000)[:800_000])
        halves.append(sock)
    wait_until(lambda: any(is_refused(sock) for sock in halves))
    for sock in halves:
        sock.close()
    wait_until(lambda: answers(server))


def test_slow_clients_and_requests_do_not_block_others() -> None:
    """Two workers, ten clients that stall within a request, one request that is not answered."""
    echo = Echo()
    with running(echo) as server:
        stalled = [connect(server) for _ in range(10)]
        for sock in stalled:
            sock.sendall(b"POST / HTTP/1.1\r\nHost")
        with connect(server) as slow:
            slow.sendall(post(b"", b"/slow"))
            assert echo.entered.wait(10)
            assert answers(server)
            echo.hold.set()
            assert received(slow).endswith(b"POST ")
        for sock in stalled:
            sock.settimeout(10)
            assert sock.recv(100) == b""  # closed after stall_seconds
            sock.close()


def test_client_that_does_not_read_occupies_no_worker(server: HttpServer) -> None:
    deaf = [connect(server) for _ in range(4)]
    for sock in deaf:
        sock.sendall(post(b"", b"/large"))
    assert answers(server)
    assert len(received(deaf[0])) > 30_000_000
    for sock in deaf:
        sock.close()


def test_flood_of_connections_leaves_room_for_new_ones(server: HttpServer) -> None:
    flood = [connect(server) for _ in range(60)]
    wait_until(lambda: answers(server))
    for sock in flood:
        sock.close()


def test_connection_evicted_while_it_is_accepted_ends_no_worker() -> None:
    class Epoll:
        """Fails once, as if another worker had closed the socket before its registration."""

        def __init__(self, epoll: Any) -> None:
            self._epoll = epoll
            self._failed = False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._epoll, name)

        def register(self, sock: socket.socket, events: int) -> None:
            if not self._failed:
                self._failed = True
                raise OSError(errno.EBADF, "Bad file descriptor")
            self._epoll.register(sock, events)

    with running(threads=1) as server:
        server._epoll = Epoll(server._epoll)  # type: ignore[assignment]
        with connect(server) as sock:
            assert received(sock) == b""
        assert answers(server)


def test_stop_lets_requests_in_flight_finish() -> None:
    echo = Echo()
    with running(echo) as server, connect(server) as sock:
        sock.sendall(post(b"", b"/slow", headers=b""))
        assert echo.entered.wait(10)
        stopping = threading.Thread(target=server.stop, args=(10.0,))
        stopping.start()
        wait_until(lambda: is_closed(server))
        echo.hold.set()
        answer = received(sock)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in answer
        stopping.join(10)
        assert not stopping.is_alive()


def test_stopped_server_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with running(threads=4) as server:
        assert answers(server)
        assert threading.active_count() == before + 4
    assert threading.active_count() == before
