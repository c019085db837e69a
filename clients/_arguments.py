"""Checks of arguments: what users plausibly pass is taken, or refused with what to write instead.

Subclasses of `str` and `int`, such as NumPy's scalars and enums, are taken as what they hold.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

__all__ = [
    "flag",
    "mapping",
    "number",
    "number_remedy",
    "seconds",
    "shown",
    "text",
    "text_remedy",
    "texts",
    "whole",
    "whole_remedy",
]

_MAX_SHOWN: Final = 80  # characters
_PLAIN_STRINGS: Final = {str}
_ENDLESS: Final = 1e9  # seconds; sockets and gRPC fail with more


def shown(value: object) -> str:
    """Return the value as code, shortened; with its type if that does not show."""
    code = repr(value)
    if len(code) > _MAX_SHOWN:
        code = f"{code[: _MAX_SHOWN - 1]}…"
    obvious = value is None or isinstance(value, str | bytes | bool | int | float | list | dict)
    return code if obvious else f"{code} ({type(value).__name__})"


# --- strings ---------------------------------------------------------------------------


def text(name: str, value: object) -> str:
    """Return a string.

    Raises:
        ValueError: `value` is not a string, or empty.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {shown(value)}{text_remedy(value)}")
    if not value:
        raise ValueError(f"{name} must be a non-empty string, got ''")
    return value if type(value) is str else str.__str__(value)


def texts(name: str, values: Iterable[Any]) -> list[str]:
    """Return a list of strings; it may be empty, and so may the strings.

    Raises:
        ValueError: `values` is a single value, or contains one that is not a string.
    """
    if isinstance(values, str):
        code = repr(str.__str__(values))
        raise ValueError(f"{name} takes a list, got the string {code}; use [{code}]")
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{name} takes a list of strings, got {shown(values)}")
    listed = list(values)
    if {*map(type, listed)} <= _PLAIN_STRINGS:
        return listed
    for value in listed:
        if not isinstance(value, str):
            raise ValueError(f"{name} takes strings, got {shown(value)}{text_remedy(value)}")
    return [str.__str__(value) for value in listed]


def text_remedy(value: object) -> str:
    """Return what to write instead of a value that is not a string, after a semicolon."""
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return "; leave it out"
    if isinstance(value, bytes):
        return f"; use {value!r}.decode()" if _is_utf8(value) else ", which is not UTF-8"
    if isinstance(value, bool):
        return ""
    if isinstance(value, Enum):
        return f"; use {value}.value" if isinstance(value.value, str) else f"; use {value}.name"
    if isinstance(value, Real) and not isinstance(value, Integral) and float(value).is_integer():
        return f"; use str(int({value!r}))"
    if isinstance(value, Real | Decimal | UUID | PurePath):
        return f"; use str({value!r})"
    return "; pass one flat list of strings" if hasattr(value, "__len__") else ""


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- numbers ---------------------------------------------------------------------------


def whole(name: str, value: object, *, least: int, most: int = 2**31 - 1) -> int:
    """Return a whole number.

    Raises:
        ValueError: `value` is not an integer (a bool is none), too small or too large.
    """
    result = value if type(value) is int else _index(value)
    if result is None:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {shown(value)}"
            f"{whole_remedy(value)}"
        )
    if result < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {result}")
    if result > most:
        raise ValueError(f"{name} must be a whole number of at most {most}, got {result}")
    return result


def whole_remedy(value: object) -> str:
    """Return what to write instead of a value that is not an integer, after a semicolon."""
    if isinstance(value, bool) or not isinstance(value, str | Real | Decimal):
        return ""
    try:
        same = str(int(str(value))) if isinstance(value, str) else float(value).is_integer()
    except (ValueError, OverflowError):
        return ""
    return f"; use int({value!r})" if same else ""


def _index(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def number(name: str, value: object) -> float:
    """Return an int or a float; it may be infinite.

    Raises:
        ValueError: `value` is not a number, or is NaN.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, got {shown(value)}{number_remedy(value)}")
    index = _index(value)
    result = float(value) if index is None else index
    if math.isnan(result):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    return result


def number_remedy(value: object) -> str:
    """Return what to write instead of a value that is not a number, after a semicolon."""
    if isinstance(value, timedelta):
        return "; use its total_seconds()"
    if isinstance(value, str | Decimal):
        try:
            float(value)
        except ValueError:
            return ""
        return f"; use float({value!r})"
    return ""


def seconds(name: str, value: object) -> float:
    """Return a duration in seconds; infinity if it is longer than clocks can add.

    Raises:
        ValueError: `value` is not a positive number.
    """
    if type(value) is float and 0 < value < _ENDLESS:
        return value
    if value is None:
        raise ValueError(
            f"{name} must be a positive number of seconds, got None; for no limit use float('inf')"
        )
    result = number(name, value)
    if not result > 0:
        raise ValueError(f"{name} must be a positive number of seconds, got {result!r}")
    return result if result < _ENDLESS else math.inf


# --- others ----------------------------------------------------------------------------


def flag(name: str, value: object) -> bool:
    """Return a bool; NumPy's is taken too.

    Raises:
        ValueError: `value` is something else, such as the string "false".
    """
    if isinstance(value, bool):
        return value
    if type(value).__name__ not in ("bool", "bool_"):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def mapping(name: str, value: object, *, example: str) -> Mapping[Any, Any]:
    """Return a mapping.

    Raises:
        ValueError: `value` is none.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} takes a mapping such as {example}, got {shown(value)}")
    return value
