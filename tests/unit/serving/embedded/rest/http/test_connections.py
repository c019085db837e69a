"""Many connections to the HTTP server: who gives way, and who gets a thread."""

import errno
import resource
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from shortlist.serving.embedded.api.limits import MemoryRoom
from shortlist.serving.embedded.rest.http.connection import (
    HttpLimits,
    network_of,
)
from shortlist.serving.embedded.rest.http.server import HttpServer
from tests.support.waiting import wait_until
from tests.unit.serving.embedded.rest.http.echo import (
    Echo,
    answers,
    connect,
    half_sent,
    is_closed,
    is_dropped,
    post,
    received,
    running,
)


def test_half_sent_requests_leave_room_for_new_connections(server: HttpServer) -> None:
    with ExitStack() as stack:
        halves = [stack.enter_context(half_sent(server, 20)) for _ in range(60)]
        for _ in range(10):
            assert answers(server)
        assert sum(is_dropped(sock) for sock in halves) >= 40


def test_network_with_most_connections_loses_them_first() -> None:
    with running() as server, connect(server) as honest, ExitStack() as stack:
        wait_until(lambda: len(server._connections) == 1)
        [connection] = server._connections.values()
        connection.network = "192.0.2.7"
        for _ in range(60):
            stack.enter_context(connect(server))
        wait_until(lambda: answers(server))
        honest.sendall(post(b"kept"))
        assert received(honest).endswith(b"kept")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.7", "192.0.2.8", False),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_network_is_what_a_client_cannot_choose(first: str, second: str, same: bool) -> None:
    assert (network_of(first) == network_of(second)) is same


def test_without_descriptors_idle_connections_make_room_and_nothing_spins() -> None:
    class Listener:
        """Fails while `empty`, as if the process had no descriptor left."""

        def __init__(self, listener: socket.socket) -> None:
            self._listener = listener
            self.empty = True
            self.calls = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._listener, name)

        def accept(self) -> Any:
            self.calls += 1
            if self.empty:
                raise OSError(errno.EMFILE, "Too many open files")
            return self._listener.accept()

    with running() as server, ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(3)]
        wait_until(lambda: len(server._connections) == 3)
        listener = Listener(server._listener)
        server._listener = listener  # type: ignore[assignment]
        with connect(server) as sock:
            wait_until(lambda: all(is_dropped(each) for each in idle))
            before, started = listener.calls, time.monotonic()
            time.sleep(0.5)
            assert listener.calls - before <= 2 + 2 * (time.monotonic() - started) / 0.1
            listener.empty = False
            sock.sendall(post(b"hello"))
            assert received(sock).endswith(b"POST hello")


def test_connection_limit_follows_the_limit_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert HttpLimits().max_connections == 384


def test_large_requests_leave_threads_for_small_ones_and_wait_for_their_turn() -> None:
    echo = Echo()
    with running(echo, threads=4, room=MemoryRoom()) as server:
        clients = [connect(server) for _ in range(8)]
        for sock in clients:
            sock.sendall(post(b"x" * 300_000, b"/slow"))
        wait_until(lambda: echo.inside == 2)
        assert all(answers(server) for _ in range(20))
        clients.pop().close()  # one goes before its turn
        assert echo.inside == 2
        echo.hold.set()
        for sock in clients:
            assert received(sock).endswith(b"x")
            sock.close()
        assert server._places == 2


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


def test_client_that_does_not_read_occupies_no_worker() -> None:
    with running(room=MemoryRoom(200_000_000)) as server:
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
