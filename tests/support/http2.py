"""HTTP/2 frames by hand, for clients that break gRPC's rules or never finish."""

import socket
import struct

__all__ = ["call_headers", "connection", "data_frames", "grpc_message"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME_BYTES = 16384


def connection(port: int) -> socket.socket:
    """Return a connection that has exchanged settings."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_SETTINGS, _ACK, 0))
    return sock


def call_headers(stream: int, path: str, *, encoding: str = "identity") -> bytes:
    """Return the frame that opens a call; streams of clients are odd."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "test",
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-encoding": encoding,
    }
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers.items())
    return _frame(_HEADERS, _END_HEADERS, stream, block)


def grpc_message(content: bytes, *, compressed: bool = False) -> bytes:
    """Return a message with gRPC's prefix."""
    return struct.pack(">BI", compressed, len(content)) + content


def data_frames(stream: int, content: bytes, *, end: bool = True) -> bytes:
    """Return the frames of a call's content."""
    starts = range(0, len(content), _FRAME_BYTES)
    return b"".join(
        _frame(
            _DATA,
            _END_STREAM if end and start == starts[-1] else 0,
            stream,
            content[start : start + _FRAME_BYTES],
        )
        for start in starts
    )


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content
