"""Bytes on the wire that no client sends: mutated HTTP requests and mutated gRPC frames.

Hypothesis mutates what real clients send, shrinks what does harm, and keeps it in the folder
`.fuzz-corpus`, from which the next run starts.
"""

import socket
import threading
from collections.abc import Sequence
from typing import Any

import grpc
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.soak.fuzz_requests import grpc_seeds, rest_seeds
from tests.support.paths import ROOT

__all__ = ["throw_frames"]

CORPUS = ROOT / ".fuzz-corpus"
MAX_BYTES = 20_000
CLOSE_SECONDS = 15.0
HTTP_TOKENS = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b":", b"\x00", b"\xff", b"/" * 300),
    *(b"Content-Length: 5\r\n", b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"0\r\n\r\n", b"ffffffff"),
    *(b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Upgrade: h2c\r\n", b"HTTP/1.0", b"HTTP/2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET "),
    b"x: " + b"a" * 3000 + b"\r\n",
]
# Length, type, flags and stream of HTTP/2 frames, and lengths of gRPC messages.
FRAME_TOKENS = [
    *(bytes([0, 0, 0, kind, flags, 0, 0, 0, 1]) for kind in range(10) for flags in (0, 1, 4, 5)),
    *(b"\x00\x00\x00\x00\x00", b"\x01\x00\x00\x00\x05", b"\x00\xff\xff\xff\xff", b"\xff\xff\xff"),
    *(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xff", b"\x80\x00\x00\x00"),
]


def http_streams() -> list[bytes]:
    """Return what clients send over REST, one or two requests each."""
    streams = []
    for path, body in rest_seeds():
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        chunked = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        streams += [2 * (head.encode() + body), chunked.encode() + chunks]
    return [*streams, b"GET /v1/models/none/metadata HTTP/1.1\r\nHost: x\r\n\r\n"]


def grpc_streams(port: int) -> list[bytes]:
    """Return what a gRPC client sends to the server at `port` for a few calls."""
    streams = []
    for path, message in grpc_seeds()[:6]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sent = bytearray()
            thread = threading.Thread(target=_record, args=(listener, port, sent))
            thread.start()
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, options=options) as channel:
                call: Any = channel.unary_unary(path)
                call.future(message, timeout=CLOSE_SECONDS).exception()
            thread.join()
            streams.append(bytes(sent))
    return streams


def _record(listener: socket.socket, port: int, sent: bytearray) -> None:
    """Pass one connection on to `port` and keep what the client sends."""
    client, _ = listener.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_pass_on, args=(server, client))
        back.start()
        while data := client.recv(1 << 16):
            sent += data
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:  # the client has closed its connection
        return


def _mutations(streams: Sequence[bytes], tokens: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    positions = st.integers(0, max(map(len, streams)))
    edit = st.tuples(
        st.sampled_from(("flip", "cut", "insert", "repeat", "end", "join")),
        positions,
        st.integers(1, 40),
        st.one_of(st.sampled_from(tokens), st.binary(min_size=1, max_size=9)),
    )
    return st.builds(
        _edited, st.sampled_from(streams), st.lists(edit, max_size=8), st.sampled_from(streams)
    )


def _edited(data: bytes, edits: Sequence[tuple[str, int, int, bytes]], other: bytes) -> bytes:
    out = bytearray(data)
    for kind, position, length, token in edits:
        at = position % (len(out) + 1)
        match kind:
            case "flip" if out:
                out[at % len(out)] ^= token[0] or 1
            case "cut":
                del out[at : at + length]
            case "insert":
                out[at:at] = token
            case "repeat":
                out[at:at] = out[at : at + length] * 20
            case "end":
                del out[at:]
            case "join":
                out[at:] = other[position % (len(other) + 1) :]
    return bytes(out[:MAX_BYTES])


def _send(port: int, data: bytes) -> None:
    """Send the bytes and end; the server must end the connection, too."""
    with socket.create_connection(("127.0.0.1", port), CLOSE_SECONDS) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while answer := sock.recv(1 << 16):
                assert b" 500 " not in answer[:16], answer[:300]
        except (ConnectionResetError, BrokenPipeError):
            return


def throw_frames(rest_port: int, grpc_port: int, count: int, first_seed: int) -> None:
    """Send `count` mutated streams to each port.

    Raises:
        AssertionError: An HTTP answer was an internal error.
        TimeoutError: The server did not end a connection.
    """
    targets = (
        (rest_port, http_streams(), HTTP_TOKENS),
        (grpc_port, grpc_streams(grpc_port), FRAME_TOKENS),
    )
    for port, streams, tokens in targets:
        _thrower(port, streams, tokens, count, first_seed)()


def _thrower(
    port: int, streams: Sequence[bytes], tokens: Sequence[bytes], count: int, number: int
) -> Any:
    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=DirectoryBasedExampleDatabase(CORPUS),
        suppress_health_check=list(HealthCheck),
    )
    @given(_mutations(streams, tokens))
    def throw(data: bytes) -> None:
        _send(port, data)

    return throw
