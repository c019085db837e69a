"""A JSON parser that accepts and refuses the same text as TensorFlow Serving's.

The real server parses with RapidJSON 1.1.0 (iterative, NaN and Infinity allowed, stops
after the document) and quotes the offending value in its messages. Text that orjson
refuses, and values to quote, come here. Strings stay bytes, as the real server accepts
strings that are not UTF-8.
"""

import math
import re
from typing import Any, Final

__all__ = ["JsonError", "JsonObject", "parse_json"]

_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER: Final = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_HEX: Final = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES: Final = {
    0x22: b'"', 0x5C: b"\\", 0x2F: b"/", 0x62: b"\b", 0x66: b"\f", 0x6E: b"\n", 0x72: b"\r",
    0x74: b"\t",
}  # fmt: skip
_LITERALS: Final = {0x6E: (b"null", None), 0x74: (b"true", True), 0x66: (b"false", False)}
_EXACT_DIGITS: Final = 15
_EXACT_POWER: Final = 22


class JsonError(ValueError):
    """The text is not JSON; the message is RapidJSON's, with the offset in bytes."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} at offset: {offset}")


class JsonObject(list[tuple[bytes, Any]]):
    """Members of an object in order, equal keys included."""

    def first(self, key: bytes) -> Any:
        """Return the value of the first member with this key.

        Raises:
            KeyError: No member has this key.
        """
        for name, value in self:
            if name == key:
                return value
        raise KeyError(key)

    def has(self, key: bytes) -> bool:
        """Return True if a member has this key."""
        return any(name == key for name, _ in self)


def parse_json(text: bytes) -> Any:
    """Parse the first JSON document in `text`, ignoring what follows.

    Returns:
        None, bool, int (64 bits), float, bytes, list or `JsonObject`.

    Raises:
        JsonError: The document is malformed.
    """
    return _Reader(text).document()


class _Reader:
    """One pass over the text, without recursion, as nesting can be as deep as the text is long."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0
        for mark in (b"\xef", b"\xbb", b"\xbf"):
            if text.startswith(mark, self.at):
                self.at += 1

    def document(self) -> Any:
        self._skip()
        if self._peek() == 0:
            raise JsonError("The document is empty.", self.at)
        stack: list[Any] = []
        keys: list[bytes] = []
        while True:
            value = self._value_or_open()
            if isinstance(value, list) and not self._closes(value):
                stack.append(value)
                if isinstance(value, JsonObject):
                    keys.append(self._key())
                continue
            while stack:
                top = stack[-1]
                if isinstance(top, JsonObject):
                    top.append((keys.pop(), value))
                else:
                    top.append(value)
                if self._more(top):
                    if isinstance(top, JsonObject):
                        keys.append(self._key())
                    break
                value = stack.pop()
            else:
                return value

    def _peek(self) -> int:
        return self.text[self.at] if self.at < len(self.text) else 0

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def _closes(self, value: list[Any]) -> bool:
        """Step over the end of a container that was just opened, if it is empty."""
        self._skip()
        if self._peek() == (0x7D if isinstance(value, JsonObject) else 0x5D):
            self.at += 1
            return True
        return False

    def _more(self, container: list[Any]) -> bool:
        """Step over a comma (True) or over the container's end (False)."""
        self._skip()
        is_object = isinstance(container, JsonObject)
        character = self._peek()
        if character == 0x2C:
            self.at += 1
            self._skip()
            return True
        if character == (0x7D if is_object else 0x5D):
            self.at += 1
            return False
        if is_object:
            raise JsonError("Missing a comma or } after an object member.", self.at)
        raise JsonError("Missing a comma or ']' after an array element.", self.at)

    def _key(self) -> bytes:
        if self._peek() != 0x22:
            raise JsonError("Missing a name for object member.", self.at)
        key = self._string()
        self._skip()
        if self._peek() != 0x3A:
            raise JsonError("Missing a colon after a name of object member.", self.at)
        self.at += 1
        self._skip()
        return key

    def _value_or_open(self) -> Any:
        character = self._peek()
        if character == 0x22:
            return self._string()
        if character == 0x5B:
            self.at += 1
            return []
        if character == 0x7B:
            self.at += 1
            return JsonObject()
        if character in _LITERALS:
            word, value = _LITERALS[character]
            if not self._accept(word):
                raise JsonError("Invalid value.", self.at)
            return value
        return self._number()

    def _string(self) -> bytes:
        self.at += 1
        parts = []
        while True:
            match = _PLAIN.match(self.text, self.at)
            assert match is not None
            parts.append(match.group())
            self.at = match.end()
            character = self._peek()
            if character == 0x22:
                self.at += 1
                return b"".join(parts)
            if character == 0x5C:
                parts.append(self._escape())
            elif character == 0:
                raise JsonError("Missing a closing quotation mark in string.", self.at)
            else:
                raise JsonError("Invalid escape character in string.", self.at)

    def _escape(self) -> bytes:
        start = self.at
        self.at += 1
        character = self._peek()
        self.at += 1
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character != 0x75:
            raise JsonError("Invalid escape character in string.", start)
        code = self._hex(start)
        if 0xD800 <= code <= 0xDBFF:
            surrogate = JsonError("The surrogate pair in string is invalid.", start)
            if self.text[self.at : self.at + 2] != b"\\u":
                raise surrogate
            self.at += 2
            low = self._hex(start)
            if not 0xDC00 <= low <= 0xDFFF:
                raise surrogate
            code = ((code - 0xD800) << 10 | (low - 0xDC00)) + 0x10000
        return chr(code).encode("utf-8", "surrogatepass")

    def _hex(self, start: int) -> int:
        match = _HEX.match(self.text, self.at)
        if match is None:
            raise JsonError("Incorrect hex digit after \\u escape in string.", start)
        self.at = match.end()
        return int(match.group(), 16)

    def _number(self) -> int | float:
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            return self._special()
        start, (whole, fraction, exponent) = self.at, match.groups(b"")
        self.at = match.end()
        if not exponent:
            # The pattern stops before a point or an exponent without digits.
            if not fraction and self._peek() == 0x2E:
                raise JsonError("Miss fraction part in number.", self.at + 1)
            if self._peek() in (0x65, 0x45):
                sign = self.at + 1 < len(self.text) and self.text[self.at + 1] in b"+-"
                raise JsonError("Miss exponent in number.", self.at + (2 if sign else 1))
        negative = match.group().startswith(b"-")
        if not fraction and not exponent:
            value = int(match.group()) if len(whole) <= 20 else None
            if value is not None and -(2**63) <= value < 2**64:
                return value
        power = _clamped(exponent)
        number = _approximate(whole, fraction[1:], power)
        if math.isinf(number) or (number and power > 308 + max(0, len(fraction) - 1)):
            raise JsonError("Number too big to be stored in double.", start)
        return -number if negative else number

    def _special(self) -> float:
        """Parse NaN, Inf or Infinity, which JSON does not have."""
        negative = self._accept(b"-")
        if self._peek() == 0x4E:
            if self._accept(b"NaN"):
                return math.nan
        elif (
            self._peek() == 0x49
            and self._accept(b"Inf")
            and (self._peek() != 0x69 or self._accept(b"inity"))
        ):
            return -math.inf if negative else math.inf
        raise JsonError("Invalid value.", self.at)

    def _accept(self, word: bytes) -> bool:
        """Step over `word`; on a mismatch, over the characters before it."""
        for expected in word:
            if self._peek() != expected:
                return False
            self.at += 1
        return True


def _clamped(exponent: bytes) -> int:
    if not exponent:
        return 0
    digits = exponent[1:].lstrip(b"+-").lstrip(b"0")
    value = int(digits) if 0 < len(digits) < 7 else (10**7 if digits else 0)
    return -value if exponent[1:2] == b"-" else value


def _approximate(whole: bytes, fraction: bytes, power: int) -> float:
    """Return RapidJSON's double for a number, up to three units in the last place off.

    Without its option for full precision, RapidJSON collects 17 digits in a double and
    scales it once by a power of ten.
    """
    digits = whole + fraction
    if len(digits) <= _EXACT_DIGITS and abs(power - len(fraction)) <= _EXACT_POWER:
        return float(whole + b"." + (fraction or b"0") + b"e%d" % power)
    significand, scale, significant = 0.0, power, 0
    exact = 0
    if whole == b"0":  # zeros after the point only scale, and there can be megabytes of them
        fraction = fraction.lstrip(b"0")
        scale -= len(digits) - 1 - len(fraction)
        digits = whole + fraction
    for position, digit in enumerate(digits):
        if (position >= len(whole) and significant >= 17) or significand == math.inf:
            break
        if significand == 0.0 and exact <= 0x1FFFFFFFFFFFFF:
            exact = exact * 10 + digit - 0x30
        else:
            significand = (significand or float(exact)) * 10.0 + (digit - 0x30)
        if position >= len(whole):
            scale -= 1
        if exact:
            significant += 1
    value = significand or float(exact)
    if scale >= 0:
        return value * 10.0**scale if scale <= 308 else (math.inf if value else 0.0)
    if scale < -308:
        value /= 1e308
        scale += 308
        if scale < -308:
            return 0.0
    return value / 10.0**-scale
