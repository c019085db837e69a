"""Protobuf messages in text form, read from files with the real server's errors."""

import errno
import logging
import os
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.no_effect import fields_without_effect, say_once

__all__ = ["read_text_message"]

log = logging.getLogger(__name__)

AnyMessage = TypeVar("AnyMessage", bound=Message)

# TensorFlow's mapping of the errno values that opening and reading a file can set.
_CODES: Final = {
    errno.EINVAL: Code.INVALID_ARGUMENT,
    errno.ENAMETOOLONG: Code.INVALID_ARGUMENT,
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENODEV: Code.NOT_FOUND,
    errno.ENXIO: Code.NOT_FOUND,
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
    errno.ENOTDIR: Code.FAILED_PRECONDITION,
    errno.EISDIR: Code.FAILED_PRECONDITION,
    errno.ENOMEM: Code.RESOURCE_EXHAUSTED,
    errno.EMFILE: Code.RESOURCE_EXHAUSTED,
    errno.ENFILE: Code.RESOURCE_EXHAUSTED,
    errno.EAGAIN: Code.UNAVAILABLE,
    errno.EINTR: Code.UNAVAILABLE,
}


def _io_error(path: Path, number: int | None) -> StatusError:
    code = _CODES.get(number or 0, Code.UNKNOWN)
    return StatusError(code, f"{path}; {os.strerror(number or errno.EIO)}")


def read_text_message(path: Path, message: AnyMessage) -> AnyMessage:
    """Fill `message` from a file in protobuf's text form, and return it.

    Fields without effect are logged.

    Raises:
        StatusError: The file cannot be read, does not hold such a message, or is empty (the
            real server maps the file into memory, which fails for an empty one).
    """
    try:
        if path.is_dir():
            raise _io_error(path, errno.ENODEV)
        data = path.read_bytes()
    except OSError as exc:
        raise _io_error(path, exc.errno) from exc
    if not data:
        raise _io_error(path, errno.EINVAL)
    try:
        text_format.Parse(data.decode("utf-8"), message)
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        log.error(
            "Error parsing text-format tensorflow.serving.%s: %s", message.DESCRIPTOR.name, exc
        )
        raise invalid(f"Invalid protobuf file: '{path}'") from exc
    for line in fields_without_effect(message, str(path)):
        say_once(line)
    return message
