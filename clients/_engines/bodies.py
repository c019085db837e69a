"""Bodies of HTTP answers, bounded before and after unzipping."""

import zlib
from typing import Final

from urllib3 import BaseHTTPResponse

__all__ = ["BodyError", "read_body"]

_GZIP: Final = zlib.MAX_WBITS | 16


class BodyError(Exception):
    """The body is too large or cannot be decoded; the message continues "the answer of …".

    Attributes:
        remedy: End of the message, if the answer was asked for; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


def read_body(response: BaseHTTPResponse, limit: int) -> bytes:
    """Return the body, unzipped.

    Reads no more than `limit` bytes and unzips no more, so that a small answer cannot fill the
    memory.

    Raises:
        BodyError: The body is larger, or not gzip although it says so.
    """
    announced = response.length_remaining  # None without Content-Length
    if announced is not None:
        if announced > limit:
            raise _too_large(limit)
        body = response.read(decode_content=False)
    else:
        body = _read_unannounced(response, limit)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise BodyError(f"is encoded as {encoding!r}, which was not asked for")
    return _unzipped(body, limit)


def _read_unannounced(response: BaseHTTPResponse, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := response.read(limit + 1 - size, decode_content=False):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
    return b"".join(pieces)


def _unzipped(body: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as exc:
        raise BodyError(f"is not the gzip that it claims to be: {exc}") from exc
    if len(plain) > limit:
        raise _too_large(limit)
    if not stream.eof or stream.unused_data:
        raise BodyError("is gzip that was cut off, or goes on after its end")
    return plain


def _too_large(limit: int) -> BodyError:
    return BodyError(
        f"has more than {limit} bytes",
        "; ask for less at a time (Limits.batch_size, k), or raise Limits(max_answer_bytes=...)",
    )
