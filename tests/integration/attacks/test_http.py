"""Attacks over HTTP: on connections, framing, gzip, JSON and paths."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.support.attacks import SMALL, AttackedServer

pytestmark = pytest.mark.slow

PATH = f"/v1/models/{SMALL}".encode()
METADATA = b"GET %s/metadata HTTP/1.1\r\nHost: x\r\n\r\n" % PATH


def post(body: bytes, headers: bytes = b"", path: bytes = PATH + b":predict") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s" % (path, headers)
    return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)


def connect(server: AttackedServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.rest_port), timeout=30)


def received(sock: socket.socket) -> bytes:
    """Receive until the connection ends."""
    data = b""
    with suppress(ConnectionError):
        while chunk := sock.recv(1 << 20):
            data += chunk
    return data


def asked(server: AttackedServer, text: bytes) -> bytes:
    with connect(server) as sock:
        with suppress(ConnectionError):
            sock.sendall(text)
        return received(sock)


def at_once(times: int, act: Callable[[], bytes]) -> list[bytes]:
    """Return the results of several calls at the same time."""
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(act())) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@contextmanager
def connections(server: AttackedServer, count: int, sends: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(connect(server))
            sock.sendall(sends)
            socks.append(sock)
        yield socks


@pytest.mark.parametrize(
    "sends",
    [b"", b"POST ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"],
    ids=["idle", "in_the_first_line", "in_the_body"],
)
def test_many_connections_keep_no_client_out(server: AttackedServer, sends: bytes) -> None:
    with server.attacked(seconds=30), connections(server, 1_500, sends):
        for _ in range(20):
            closing = METADATA.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            assert asked(server, closing).startswith(b"HTTP/1.1 200 ")


def test_endless_header_lines_end_early(server: AttackedServer) -> None:
    def send() -> bytes:
        with connect(server) as sock:
            with suppress(ConnectionError):
                sock.sendall(b"GET / HTTP/1.1\r\nA: ")
                for _ in range(500):
                    sock.sendall(b"a" * 8_192)
            return received(sock)

    with server.attacked(seconds=20, memory_mib=30):
        answers = at_once(8, send)
    assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 431", b""}  # empty: reset


def test_answers_that_are_not_read_take_little_memory(server: AttackedServer) -> None:
    with server.attacked(seconds=30, memory_mib=60), connections(server, 20, METADATA) as deaf:
        for sock in deaf:
            sock.settimeout(0.3)
            with suppress(TimeoutError, ConnectionError):
                for _ in range(100):
                    sock.sendall(METADATA * 300)
        time.sleep(2.0)  # while the server answers into the void


def test_chunks_of_one_byte_take_little_memory(server: AttackedServer) -> None:
    head = b"POST %s:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH
    text = head + b"1\r\n \r\n" * 300_000 + b"0\r\n\r\n"
    with server.attacked(seconds=20, memory_mib=30):
        at_once(4, lambda: asked(server, text.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)))


@pytest.mark.parametrize(
    "unzipped",
    [b"[]," * 33_000_000, b"[]," * 2_000_000, b" " * 60_000_000],
    ids=["99_MB_of_values", "6_MB_of_values", "60_MB_of_spaces"],
)
def test_gzip_bombs_are_refused(server: AttackedServer, unzipped: bytes) -> None:
    unzipped = b'{"instances": [' + unzipped + b"0]}"
    text = post(gzip.compress(unzipped), b"Content-Encoding: gzip\r\n")
    with server.attacked(seconds=10, memory_mib=100):
        answers = at_once(8, lambda: asked(server, text))
    assert {answer[:12] for answer in answers} == {b"HTTP/1.1 429"}


@pytest.mark.parametrize(
    ("times", "body"),
    [
        (8, b'{"instances": [' + b"[]," * 100_000 + b"NaN]}"),
        (8, b"[" * 200_000),
        (64, b"[" * 60_000),
        (8, b'{"signature_name": ["' + rb"\n" * 200_000),
        (8, b'{"instances": [' + b"9" * 3_000_000),
        (8, b"[" * 5_000_000),
    ],
    ids=["lists", "nested_lists", "many_bodies", "escapes", "long_number", "too_many"],
)
def test_json_that_is_slow_to_parse_stops_no_other(
    server: AttackedServer, times: int, body: bytes
) -> None:
    with server.attacked(seconds=20, memory_mib=200):
        answers = at_once(times, lambda: asked(server, post(body)))
    assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 400", b"HTTP/1.1 429"}


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"//" + b"a" * 60_000 + b"/^", 400),
        (b"/v1/models/" + b"%ff" * 20_000, 404),
        (b"/v1/models/m/versions/" + b"9" * 5_000, 400),
        (b"//v1%2fmodels/../monitoring/prometheus/metrics", 404),
    ],
    ids=["backtracking", "not_utf8", "digits", "double_slash"],
)
def test_odd_targets_are_refused_at_once(
    server: AttackedServer, target: bytes, status: int
) -> None:
    text = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target
    with server.attacked(seconds=5, memory_mib=50):
        for _ in range(20):
            assert asked(server, text).startswith(b"HTTP/1.1 %d " % status)
