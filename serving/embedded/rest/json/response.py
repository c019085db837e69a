"""From tensors to a JSON response, with the real server's layout and numbers.

The rules are those of `tensorflow_serving/util/json_tensor.cc`: the row form puts each row's
arrays on one line, the column form each value on a separate line; an output whose name ends
in `_bytes` is base64; strings that are not UTF-8 are written as they are.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import numpy_name
from shortlist.serving.embedded.api.errors import invalid
from shortlist.serving.embedded.rest.json.writer import json_escape

__all__ = [
    "classification_json",
    "column_json",
    "error_json",
    "format_float",
    "regression_json",
    "row_json",
]

_INDENT: Final = b"    "
_VECTORIZED_FROM: Final = 64  # below, single values are faster than numpy's calls
_TO_ESCAPE: Final = bytes(range(0x20)) + b'"\\'
_HALF_STEP: Final = 2.0**-23
_SMALLEST_FLOAT: Final = 2.0**-126
_SMALLEST_DOUBLE: Final = 2.0**-1022
_INTEGERS: Final = "bBhiIlLqQ"  # without uint16, which the real server does not write


def error_json(message: str) -> bytes:
    """Return the body of an error."""
    return b'{\n    "error": ' + json_escape(message.encode("utf-8", "surrogateescape")) + b"\n}"


def row_json(outputs: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the answer in row form.

    Raises:
        StatusError: The outputs differ in their first dimension, or an output's type has no
            JSON form.
    """
    _need_outputs(outputs)
    rows = -1
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if rows not in (-1, array.shape[0]):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} "
                f"expecting: {rows}"
            )
        rows = array.shape[0]
    named = len(outputs) > 1
    columns = [
        _row_values(array, _is_bytes(name, array), depth=3 if named else 2)
        for name, array in outputs.items()
    ]
    if not named:
        body = b", ".join(columns[0])
        inner = body + b"\n    " if rows else b""
        return b'{\n    "predictions": [' + inner + b"]\n}"
    keys = [b"            " + json_escape(name.encode()) + b": " for name in outputs]
    objects = [
        b"\n        {\n"
        + b",\n".join(key + value for key, value in zip(keys, values, strict=True))
        + b"\n        }"
        for values in zip(*columns, strict=True)
    ]
    inner = b",".join(objects) + b"\n    " if rows else b""
    return b'{\n    "predictions": [' + inner + b"]\n}"


def column_json(outputs: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the answer in column form.

    Raises:
        StatusError: An output's type has no JSON form.
    """
    _need_outputs(outputs)
    if len(outputs) == 1:
        [(name, array)] = outputs.items()
        return b'{\n    "outputs": ' + _pretty(array, _is_bytes(name, array), 1) + b"\n}"
    members = [
        b"        " + json_escape(name.encode()) + b": " + _pretty(array, _is_bytes(name, array), 2)
        for name, array in outputs.items()
    ]
    return b'{\n    "outputs": {\n' + b",\n".join(members) + b"\n    }\n}"


def _need_outputs(outputs: Mapping[str, npt.NDArray[Any]]) -> None:
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")


def _is_bytes(name: str, array: npt.NDArray[Any]) -> bool:
    return array.dtype.char == "O" and name.endswith("_bytes")


def _row_values(array: npt.NDArray[Any], as_base64: bool, *, depth: int) -> list[bytes]:
    """Return each row of a tensor on one line, except for line breaks in base64 objects."""
    tokens = _tokens(array, as_base64, depth + array.ndim - 1)
    return _nested(tokens, array.shape[1:], array.shape[0])


def _nested(tokens: Sequence[bytes], shape: Sequence[int], count: int) -> list[bytes]:
    """Return `count` arrays of this shape, each on one line."""
    values = list(tokens)
    for position in range(len(shape) - 1, -1, -1):
        width = shape[position]
        groups = count * math.prod(shape[:position])
        if width == 0:
            values = [b"[]"] * groups
        else:
            values = [
                b"[" + b", ".join(values[start : start + width]) + b"]"
                for start in range(0, groups * width, width)
            ]
    return values


def _pretty(array: npt.NDArray[Any], as_base64: bool, depth: int) -> bytes:
    """Return a tensor with each value on a separate line, `depth` levels deep in the document."""
    values = list(_tokens(array, as_base64, depth + array.ndim))
    for position in range(array.ndim - 1, -1, -1):
        width = array.shape[position]
        groups = math.prod(array.shape[:position])
        if width == 0:
            values = [b"[]"] * groups
            continue
        inner = b"\n" + _INDENT * (depth + position + 1)
        separator, start_mark = b"," + inner, b"[" + inner
        end_mark = b"\n" + _INDENT * (depth + position) + b"]"
        values = [
            start_mark + separator.join(values[start : start + width]) + end_mark
            for start in range(0, groups * width, width)
        ]
    return values[0]


def _tokens(array: npt.NDArray[Any], as_base64: bool, depth: int) -> list[bytes]:
    """Return the leaves of a tensor as JSON."""
    # A comparison of dtypes instead would take longer than writing a few values.
    kind = array.dtype.char
    values = array.ravel().tolist()
    if kind == "O":
        if as_base64:
            return [_base64_object(value, depth) for value in values]
        return _string_tokens(values)
    if kind in "fd":
        return _float_tokens(array, values)
    if not values:
        return []
    if kind == "?":
        return [b"true" if value else b"false" for value in values]
    if kind in _INTEGERS:
        return orjson.dumps(values)[1:-1].split(b",")
    raise invalid(f"Failed to write JSON value for tensor type: {numpy_name(array.dtype)}")


def _base64_object(value: bytes, depth: int) -> bytes:
    return b"".join(
        (
            b"{\n",
            _INDENT * (depth + 1),
            b'"b64": "',
            base64.b64encode(value),
            b'"\n',
            _INDENT * depth,
            b"}",
        )
    )


def _string_tokens(values: list[bytes]) -> list[bytes]:
    joined = b"".join(values)
    # Deleting characters is the fastest search for any of several.
    if len(joined.translate(None, _TO_ESCAPE)) != len(joined):
        return [json_escape(value) for value in values]
    return [b'"' + value + b'"' for value in values]


# --- numbers --------------------------------------------------------------------------------


def format_float(value: float, *, single: bool) -> bytes:
    """Return a number as the real server writes it.

    Six significant digits if they reproduce the value, otherwise 9 for a float and 17 for a
    double; whole numbers end in `.0`.

    Args:
        value: The number; for `single`, a float32 as a Python float.
        single: True for a float, False for a double.
    """
    text = b"%g" % value
    back = float(text)
    if back != value:
        if value != value:
            return b"NaN"
        # Doubles further apart than this are different floats: no need to round.
        if single and abs(back - value) <= abs(value) * _HALF_STEP:
            back = float(np.float32(back))
        if back != value:
            text = b"%.9g" % value if single else b"%.17g" % value
    elif math.isinf(value):
        return b"-Infinity" if value < 0 else b"Infinity"
    if -_SMALLEST_FLOAT < value < _SMALLEST_FLOAT and abs(value) < (
        _SMALLEST_FLOAT if single else _SMALLEST_DOUBLE
    ):
        # The real server's threads flush denormal numbers to zero.
        text = b"-0" if math.copysign(1.0, value) < 0 else b"0"
    if b"." not in text and b"e" not in text:
        text += b".0"
    return text


def _float_tokens(array: npt.NDArray[Any], values: list[float]) -> list[bytes]:
    single = array.dtype.char == "f"
    if not single:
        return [format_float(value, single=False) for value in values]
    if len(values) >= _VECTORIZED_FROM:
        tokens = _many_floats(array.ravel())
        if tokens is not None:
            return tokens
    tokens = []
    for value in values:
        size = abs(value)
        # Shortcut of `format_float` for most scores.
        if 1e-4 <= size < 999999.0 and abs(float(b"%g" % value) - value) > size * _HALF_STEP:
            tokens.append(b"%.9g" % value)
        else:
            tokens.append(format_float(value, single=True))
    return tokens


def _many_floats(flat: npt.NDArray[Any]) -> list[bytes] | None:
    """Return `format_float` of many float32 values; None if some are very large or small.

    Rounds to 6 or 9 significant digits in double precision. Powers of ten up to 1e22 are
    exact there, so the quotient is the double nearest to the decimal number, and orjson
    writes it with exactly these digits.
    """
    doubles = flat.astype(np.float64)
    magnitude = np.abs(doubles)
    ordinary = (magnitude >= 1e-4) & (magnitude < 999999.5)
    if not np.logical_or(ordinary, doubles == 0).all():
        return None
    exponent = np.floor(np.log10(np.where(magnitude == 0, 1.0, magnitude))).astype(np.int64)
    short_scale = 10.0 ** (5 - exponent)
    short = np.rint(doubles * short_scale) / short_scale
    long_scale = 10.0 ** (8 - exponent)
    long = np.rint(doubles * long_scale) / long_scale
    rounded = np.where(short.astype(np.float32) == flat, short, long)
    return orjson.dumps(rounded, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def classification_json(result: messages.ClassificationResult) -> bytes:
    """Return the answer to a classify request."""
    rows = [
        b"["
        + b", ".join(
            b"["
            + json_escape(entry.label.encode())
            + b", "
            + format_float(entry.score, single=True)
            + b"]"
            for entry in row.classes
        )
        + b"]"
        for row in result.classifications
    ]
    return b'{\n    "results": [' + b", ".join(rows) + b"\n    ]\n}"


def regression_json(result: messages.RegressionResult) -> bytes:
    """Return the answer to a regress request."""
    values = [format_float(entry.value, single=True) for entry in result.regressions]
    return b'{\n    "results": [' + b", ".join(values) + b"]\n}"
