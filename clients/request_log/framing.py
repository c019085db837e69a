"""TFRecord framing: length, checksum of the length, record, checksum of the record."""

import struct
from collections.abc import Callable, Generator, Iterable
from functools import cache
from typing import Final

from shortlist.clients.errors import ShortlistError

__all__ = ["DamagedError", "checksum", "frame", "is_framed", "unframed"]

_HEADER: Final = struct.Struct("<QI")
_FOOTER: Final = struct.Struct("<I")
_HEADER_BYTES: Final = _HEADER.size
_MASK_DELTA: Final = 0xA282EAD8
_UINT32: Final = 0xFFFFFFFF
_MAX_RECORD: Final = 2**31 - 1  # bytes of a protobuf message


class DamagedError(ValueError):
    """A checksum does not fit, or a record is too long.

    Attributes:
        offset: Start of the record in the unzipped file.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@cache
def checksum() -> Callable[[bytes], int]:
    """Return the function that computes CRC32C.

    Raises:
        ShortlistError: The extra is not installed.
    """
    try:
        from google_crc32c import value
    except ImportError as exc:
        raise ShortlistError(
            "request logs need google-crc32c, which is not installed: pip install 'shortlist[log]'"
        ) from exc
    function: Callable[[bytes], int] = value
    return function


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _UINT32


def frame(record: bytes) -> bytes:
    """Return a record with its frame."""
    crc = checksum()
    size = len(record)
    header = _HEADER.pack(size, _masked(crc(size.to_bytes(8, "little"))))
    return b"".join((header, record, _FOOTER.pack(_masked(crc(record)))))


def is_framed(start: bytes) -> bool:
    """Return whether the first bytes of a file are the start of a frame."""
    if len(start) < _HEADER_BYTES:
        return False
    _, length_crc = _HEADER.unpack_from(start)
    return bool(length_crc == _masked(checksum()(start[:8])))


def unframed(chunks: Iterable[bytes]) -> Generator[bytes, None, int]:
    """Yield the records in the parts of an unzipped file; one that is cut off is left out.

    Returns:
        Number of bytes after the last whole record.

    Raises:
        DamagedError: A checksum does not fit, or a record is longer than any can be.
    """
    crc = checksum()
    parts, size, needed, offset = [b""], 0, _HEADER_BYTES, 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size < needed:  # joined once, however many parts a record has
            continue
        data, start, needed = b"".join(parts), 0, _HEADER_BYTES
        while len(data) - start >= _HEADER_BYTES:
            length, length_crc = _HEADER.unpack_from(data, start)
            if length_crc != _masked(crc(data[start : start + 8])):
                raise DamagedError("the length of a record is damaged", offset + start)
            if length > _MAX_RECORD:
                raise DamagedError(f"a record of {length:,} bytes is too long", offset + start)
            end = start + _HEADER_BYTES + length
            if end + _FOOTER.size > len(data):
                needed = end + _FOOTER.size - start
                break
            record = data[start + _HEADER_BYTES : end]
            if _FOOTER.unpack_from(data, end)[0] != _masked(crc(record)):
                raise DamagedError("a record is damaged", offset + start)
            yield record
            start = end + _FOOTER.size
        parts, size = [data[start:]], len(data) - start
        offset += start
    return size
