"""Requests to the HTTP server from slow, greedy and broken clients."""

import socket
import threading
import time
import tracemalloc
from contextlib import ExitStack, suppress

import pytest

from shortlist.serving.embedded.api.limits import MemoryRoom
from shortlist.serving.embedded.rest.http.connection import (
    Connection,
    HttpRequest,
    HttpResponse,
)
from shortlist.serving.embedded.rest.http.server import HttpServer
from tests.support.waiting import wait_until
from tests.unit.serving.embedded.rest.http.echo import (
    LIMITS,
    Echo,
    answers,
    asked,
    connect,
    half_sent,
    is_dropped,
    post,
    received,
    running,
)


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


def test_memory_of_all_bodies_is_limited_and_the_oldest_makes_room() -> None:
    """Large bodies get three quarters of 3 MB: two of 900 kB, not three."""
    room = MemoryRoom(3_000_000)
    with running(room=room) as server, ExitStack() as stack:
        halves = [stack.enter_context(half_sent(server, 800_000)) for _ in range(2)]
        wait_until(lambda: room.taken >= 1_500_000)
        assert asked(server, post(b"y" * 900_000)).endswith(b"y")
        assert [is_dropped(sock) for sock in halves] == [True, False]
        room.need(1_500_000)  # the handler at work
        newcomer = asked(server, post(b"y" * 900_000))
        assert newcomer.startswith(b"HTTP/1.1 429 ")
        assert b"memory for requests is used up (--request_memory_mb); try again" in newcomer
        assert is_dropped(halves[1])
        assert answers(server)  # small bodies still have room
        room.give(1_500_000)
        assert asked(server, post(b"y" * 900_000)).endswith(b"y")


def test_answer_without_memory_is_an_error_that_can_be_repeated() -> None:
    room = MemoryRoom(3_000_000)
    with running(room=room) as server:
        assert asked(server, post(b"", b"/large")).startswith(b"HTTP/1.1 429 ")
        room.limit = 100_000_000
        assert len(asked(server, post(b"", b"/large"))) > 30_000_000


@pytest.mark.parametrize(
    ("start", "more", "status"),
    [
        (b"GET /", b"a" * 1_000, 431),
        (b"GET / HTTP/1.1\r\nA: ", b"a" * 1_000, 431),
        (b"GET / HTTP/1.1\r\n", b"a" * 1_000, 431),
        (b"GET / HTTP/1.1\r\n", b"a:\r\n" * 100, 431),
        (b"GET / HTTP/1.1\r\n", b"".join(b"%d:\r\n" % n for n in range(200)), 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 1_000, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"a" * 1_000, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 100, 431),
    ],
)
def test_headers_without_an_end_are_refused_early(
    server: HttpServer, start: bytes, more: bytes, status: int
) -> None:
    """Before they end, and without the quadratic cost of copying what has arrived so far."""
    with connect(server) as sock:
        sock.sendall(start)
        with suppress(ConnectionError):
            for _ in range(60):
                sock.sendall(more)
        assert received(sock).startswith(b"HTTP/1.1 %d " % status)
    assert answers(server)


def test_trailers_are_no_headers() -> None:
    connection = Connection(socket.socket(), "x", LIMITS, MemoryRoom(), make_room=lambda: False)
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    connection.feed(head + b"Content-Encoding: gzip\r\n\r\n" + post(b"b"))
    first, second = connection.complete
    assert (first.headers, first.body) == ({b"transfer-encoding": b"chunked"}, b"a")
    assert second.body == b"b"
    connection.release()
    connection.sock.close()


def test_chunks_of_few_bytes_take_little_more_memory_than_their_bytes() -> None:
    connection = Connection(socket.socket(), "x", LIMITS, MemoryRoom(), make_room=lambda: False)
    connection.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    tracemalloc.start()
    for _ in range(250):
        connection.feed(b"2\r\nab\r\n" * 1_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    connection.feed(b"0\r\n\r\n")
    assert connection.complete[0].body == b"ab" * 250_000
    assert peak < 2_000_000
    connection.release()
    connection.sock.close()


def test_request_knows_when_its_client_has_gone() -> None:
    states: list[bool] = []

    class Watching(Echo):
        def __call__(self, request: HttpRequest) -> HttpResponse:
            states.append(request.active())
            answer = super().__call__(request)
            states.append(request.active())
            return answer

    echo = Watching()
    with running(echo) as server:
        with connect(server) as sock:
            sock.sendall(post(b"", b"/slow"))
            assert echo.entered.wait(10)
        echo.hold.set()
        wait_until(lambda: len(states) == 2)
    assert states == [True, False]


def test_pipelined_requests_wait_while_answers_are_unsent() -> None:
    echo = Echo()
    room = MemoryRoom(200_000_000)
    with running(echo, room=room) as server:
        deaf = [connect(server) for _ in range(4)]
        for sock in deaf:
            sock.sendall(post(b"", b"/large", headers=b"") * 300)
        wait_until(lambda: room.taken > 4 * 25_000_000)
        assert answers(server)
        assert echo.count == 4 + 1
        for sock in deaf[1:]:
            sock.close()
        for _ in range(3):  # the rest is answered as soon as the client reads
            answer = b""
            while len(answer) < 30_000_000:
                answer += deaf[0].recv(1 << 20)
        deaf[0].close()


def test_many_pipelined_requests_are_all_answered(server: HttpServer) -> None:
    with connect(server) as sock:
        sender = threading.Thread(target=sock.sendall, args=(post(b"a", headers=b"") * 5_000,))
        sender.start()
        answer = b""
        while answer.count(b"POST a") < 5_000:
            answer += sock.recv(1 << 20)
        sender.join()


@pytest.mark.parametrize(
    "start", [b"POST / HTTP/1.1\r\nHost: ", post(b"x" * 900_000)[:200_000]], ids=["head", "body"]
)
def test_request_without_progress_is_dropped(start: bytes) -> None:
    """One byte now and then is no progress."""
    with running(stall_seconds=1.0, min_rate=1_000) as server, connect(server) as sock:
        sock.sendall(start)
        started = time.monotonic()
        while not is_dropped(sock):
            assert time.monotonic() - started < 10
            with suppress(ConnectionError):
                sock.sendall(b"x")
            time.sleep(0.05)
        assert answers(server)


def test_slow_request_with_progress_is_answered() -> None:
    with running(stall_seconds=0.5, min_rate=1_000) as server, connect(server) as sock:
        text = post(b"x" * 10_000)
        for start in range(0, len(text), 500):
            sock.sendall(text[start : start + 500])
            time.sleep(0.1)  # five times as fast as required, and four times the period
        assert received(sock).endswith(b"x")


def test_client_that_stops_reading_is_dropped_and_a_slow_one_is_not() -> None:
    room = MemoryRoom(100_000_000)
    with (
        running(room=room, stall_seconds=1.0, min_rate=1_000) as server,
        connect(server) as slow,
        connect(server) as deaf,
    ):
        for sock in (slow, deaf):
            sock.sendall(post(b"", b"/large"))
        wait_until(lambda: room.taken > 50_000_000)
        size, stalled = 0, time.monotonic() + 2.0
        # Both answers; what the kernel takes of them counts no more.
        while room.taken > 35_000_000 or time.monotonic() < stalled:
            size += len(slow.recv(100_000))
            time.sleep(0.02)
        size += len(received(slow))
        assert size > 30_000_000
        wait_until(lambda: room.taken == 0)  # before the other one reads again
        with suppress(ConnectionError):
            assert len(received(deaf)) < 30_000_000
