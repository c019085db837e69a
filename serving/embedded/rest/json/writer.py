"""JSON text as RapidJSON writes it: strings in answers, and values quoted in errors."""

import math
import re
from typing import Any, Final

from shortlist.serving.embedded.rest.json.parser import JsonObject

__all__ = ["debug_string", "json_escape"]

_DEBUG_LIMIT: Final = 256
_QUOTED_BYTES: Final = 8192  # of one string; longer messages are cut anyway
_TO_ESCAPE: Final = re.compile(rb'[\x00-\x1f"\\]')
_SHORT_ESCAPES: Final = {
    0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0C: b"\\f", 0x0D: b"\\r", 0x22: b'\\"',
    0x5C: b"\\\\",
}  # fmt: skip


def json_escape(text: bytes) -> bytes:
    """Return `text` as a JSON string; bytes that are not UTF-8 stay as they are."""
    if _TO_ESCAPE.search(text) is None:
        return b'"' + text + b'"'
    return b'"' + _TO_ESCAPE.sub(_escaped, text) + b'"'


def _escaped(match: re.Match[bytes]) -> bytes:
    code = match.group()[0]
    return _SHORT_ESCAPES.get(code) or b"\\u%04X" % code


def debug_string(value: Any) -> str:
    """Return `value` as the real server quotes it: indented, cut after about 256 bytes."""
    writer = _DebugWriter()
    writer.write(value)
    return b"".join(writer.parts).decode("utf-8", "surrogateescape")


class _DebugWriter:
    """RapidJSON's pretty writer with single-line arrays; stops after the limit."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def _put(self, text: bytes) -> None:
        self.parts.append(text)
        self.size += len(text)

    def write(self, value: Any) -> None:
        # Entries are (container or None for the root, index of its next child).
        stack: list[list[Any]] = []
        if not self._start(value, stack):
            return
        while stack:
            container, index = stack[-1]
            if index == len(container):
                if self.size >= _DEBUG_LIMIT:
                    return
                stack.pop()
                self._end(container, len(stack))
                continue
            stack[-1][1] = index + 1
            if self.size >= _DEBUG_LIMIT:
                return
            child = container[index]
            if isinstance(container, JsonObject):
                key, child = child
                self._put(b"," if index else b"")
                self._put(b"\n" + b" " * 4 * len(stack) + json_escape(key[:_QUOTED_BYTES]))
                if self.size >= _DEBUG_LIMIT:
                    return
                self._put(b": ")
            elif index:
                self._put(b", ")
            if not self._start(child, stack):
                return

    def _start(self, value: Any, stack: list[list[Any]]) -> bool:
        """Write a scalar or open a container; False if the real writer gives up."""
        if isinstance(value, list):
            self._put(b"{" if isinstance(value, JsonObject) else b"[")
            stack.append([value, 0])
        elif isinstance(value, bytes):
            self._put(json_escape(value[:_QUOTED_BYTES]))
        elif value is None:
            self._put(b"null")
        elif isinstance(value, bool):
            self._put(b"true" if value else b"false")
        elif isinstance(value, int):
            self._put(b"%d" % value)
        elif math.isfinite(value):
            self._put(_double(value))
        else:
            return False
        return True

    def _end(self, container: list[Any], depth: int) -> None:
        if isinstance(container, JsonObject):
            self._put((b"\n" + b" " * 4 * depth if container else b"") + b"}")
        else:
            self._put(b"]")


def _double(value: float) -> bytes:
    """Return a finite double as RapidJSON writes it: 100.0, 1e-7, 1.5e30."""
    if value == 0:
        return b"-0.0" if math.copysign(1, value) < 0 else b"0.0"
    sign = b"-" if value < 0 else b""
    digits, point = _digits(abs(value))
    if len(digits) <= point <= 21:
        return sign + digits + b"0" * (point - len(digits)) + b".0"
    if 0 < point <= 21:
        return sign + digits[:point] + b"." + digits[point:]
    if -6 < point <= 0:
        return sign + b"0." + b"0" * -point + digits
    tail = b"." + digits[1:] if len(digits) > 1 else b""
    return sign + digits[:1] + tail + b"e%d" % (point - 1)


def _digits(value: float) -> tuple[bytes, int]:
    """Return the shortest digits of a positive double and the place of its decimal point."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) - (len(whole + fraction) - len(digits)) + int(exponent or 0)
    return digits.rstrip("0").encode(), point
