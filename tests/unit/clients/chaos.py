"""A TCP proxy that breaks what passes through it."""

import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nbusy"
)


@dataclass
class Chaos:
    """Probabilities of what happens to each piece of an answer; the rest passes.

    Attributes:
        reset: The connection is reset.
        truncate: Half the piece passes, then the connection closes.
        busy: A 503 takes its place (only for HTTP).
        delay: It waits for up to `longest_delay` seconds.
        hole: Nothing passes on this connection any more, but it stays open.
        drip: The piece passes one byte at a time, 30 a second.
        seed: Random seed.
    """

    reset: float = 0.0
    truncate: float = 0.0
    busy: float = 0.0
    delay: float = 0.0
    hole: float = 0.0
    drip: float = 0.0
    longest_delay: float = 0.2
    seed: int = 0
    happened: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._lock = threading.Lock()

    def roll(self) -> str:
        with self._lock:
            point = self._dice.random()
            for name in ("reset", "truncate", "busy", "delay", "hole", "drip"):
                chance: float = getattr(self, name)
                if point < chance:
                    self.happened[name] = self.happened.get(name, 0) + 1
                    return name
                point -= chance
            return "pass"


class _Connection:
    """A client's connection, and the proxy's own to the server."""

    def __init__(self, client: socket.socket, port: int, chaos: Chaos, stop: threading.Event):
        self._client = client
        self._server = socket.create_connection(("127.0.0.1", port))
        for sock in (self._client, self._server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._chaos = chaos
        self._stop = stop
        self._hole = False

    def run(self) -> None:
        try:
            while not self._stop.is_set():
                ready, _, _ = select.select([self._client, self._server], [], [], 0.05)
                for sock in ready:
                    piece = sock.recv(65536)
                    if not piece:
                        return
                    if sock is self._client:
                        self._server.sendall(piece)
                    elif not self._answer(piece):
                        return
        except OSError:
            return
        finally:
            self._client.close()
            self._server.close()

    def _answer(self, piece: bytes) -> bool:
        """Pass a piece on, or not; return False to end the connection."""
        if self._hole:
            return True
        what = self._chaos.roll()
        if what == "reset":
            linger = struct.pack("ii", 1, 0)  # close sends RST
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        if what == "truncate":
            self._client.sendall(piece[: len(piece) // 2])
            return False
        if what == "busy":
            self._client.sendall(UNAVAILABLE)
            return True
        if what == "hole":
            self._hole = True
            return True
        if what == "drip":
            for byte in piece:
                self._client.sendall(bytes([byte]))
                if self._stop.wait(1 / 30):
                    return False
            return True
        if what == "delay":
            self._stop.wait(random.uniform(0, self._chaos.longest_delay))
        self._client.sendall(piece)
        return True


@contextmanager
def proxy(port: int, chaos: Chaos) -> Iterator[int]:
    """Listen on a free port in front of `port`, and yield it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.settimeout(0.05)
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def accept() -> None:
        while not stop.is_set():
            with suppress(TimeoutError, ConnectionError):
                client, _ = listener.accept()
                client.settimeout(None)
                connection = _Connection(client, port, chaos, stop)
                thread = threading.Thread(target=connection.run, daemon=True)
                thread.start()
                threads.append(thread)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        acceptor.join(5)
        deadline = time.monotonic() + 5
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        listener.close()
