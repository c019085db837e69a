"""An HTTP server that echoes, with tight limits."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from shortlist.serving.embedded.api.limits import MemoryRoom
from shortlist.serving.embedded.rest.http.connection import (
    HttpLimits,
    HttpRequest,
    HttpResponse,
)
from shortlist.serving.embedded.rest.http.server import HttpServer

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
        self.count = self.inside = 0

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.count += 1
        if request.target == b"/slow":
            self.inside += 1
            self.entered.set()
            self.hold.wait(20)
        if request.target == b"/fail":
            raise RuntimeError("a bug in the handler")
        if request.target == b"/large":
            return HttpResponse(status=200, body=b"x" * 30_000_000)
        return HttpResponse(status=200, body=request.method + b" " + request.body)


@contextmanager
def running(
    handler: Echo | None = None,
    threads: int = 2,
    room: MemoryRoom | None = None,
    **limits: Any,
) -> Iterator[HttpServer]:
    room = room or MemoryRoom(3_000_000)
    server = HttpServer(
        handler or Echo(),
        host="127.0.0.1",
        port=0,
        threads=threads,
        limits=replace(LIMITS, **limits),
        room=room,
    )
    try:
        yield server
    finally:
        server.stop(0.0)
    assert room.taken == 0


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


def half_sent(server: HttpServer, size: int) -> socket.socket:
    sock = connect(server)
    sock.sendall(post(b"x" * 900_000)[:size])
    return sock


def is_dropped(sock: socket.socket) -> bool:
    sock.settimeout(0.01)
    try:
        return sock.recv(100) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True
