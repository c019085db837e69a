"""Tensors from JSON, value by value, with the error messages of the real server.

The rules are those of `tensorflow_serving/util/json_tensor.cc`. Documents come from `parser`.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shortlist.serving.embedded.api.dtypes import DTYPES, Dtype, dtype_name
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.tensors import MAX_RANK, object_array, shape_text
from shortlist.serving.embedded.rest.json.parser import JsonError, JsonObject, parse_json
from shortlist.serving.embedded.rest.json.writer import debug_string

__all__ = [
    "INT_RANGES",
    "NUMBERS",
    "column_tensors",
    "decode_base64",
    "flat_array",
    "is_base64_object",
    "json_type",
    "parse_object",
    "row_tensors",
    "shown",
    "signature_name_of",
]

INT_RANGES: Final = {
    "int32": (-(2**31), 2**31),
    "int16": (-(2**31), 2**31),
    "int8": (-(2**31), 2**31),
    "uint8": (-(2**31), 2**31),
    "int64": (-(2**63), 2**63),
    "uint32": (0, 2**32),
    "uint64": (0, 2**64),
}
NUMBERS: Final = frozenset((int, float))
_MAX_ESCAPES: Final = 1_000_000
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*")
_BASE64_SPACE: Final = re.compile(rb"[ \t\n\v\f\r]+")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def parse_object(body: bytes) -> JsonObject:
    """Return the JSON object in a request body.

    Raises:
        StatusError: The body is not a JSON object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    escapes = body.count(b"\\")
    if escapes > _MAX_ESCAPES:  # each takes a microsecond here
        raise StatusError(
            Code.RESOURCE_EXHAUSTED,
            f"the request has {escapes} backslashes in a form of JSON that takes long to parse; "
            f"this server takes {_MAX_ESCAPES}: send them in several requests",
        )
    try:
        document = parse_json(body)
    except JsonError as exc:
        raise invalid(f"JSON Parse error: {exc}") from None
    if not isinstance(document, JsonObject):
        raise invalid(f"JSON Value: {debug_string(document)} Is not object")
    return document


def signature_name_of(document: JsonObject) -> str:
    """Return the request's signature name, empty if there is none.

    Raises:
        StatusError: The name is not a string.
    """
    if not document.has(b"signature_name"):
        return ""
    name = document.first(b"signature_name")
    if not isinstance(name, bytes):
        raise invalid(
            f"JSON Value: {debug_string(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return _text(name)


def shown(value: Any, message: str) -> StatusError:
    """Return an error that begins with the offending value."""
    return invalid(f"JSON Value: {debug_string(value)} {message}")


def flat_array(leaves: list[Any], dtype: Dtype) -> npt.NDArray[Any]:
    """Return a flat array of leaves whose types fit; strings are bytes.

    As in C++, what a float cannot hold becomes infinity, and integer types of fewer than 32
    bits keep the low bits.
    """
    if dtype.name == "string":
        return object_array(leaves)
    if dtype.name in ("float", "double"):
        with np.errstate(over="ignore"):
            return np.array(leaves, np.float64).astype(dtype.numpy, copy=False)
    if dtype.name in ("bool", "uint64"):
        return np.array(leaves, dtype.numpy)
    return np.array(leaves, np.int64).astype(dtype.numpy)


class _Tensor:
    """Leaves of one input, collected so far."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.leaves: list[Any] = []
        self.size: int | None = None
        self.shape: list[int] = []

    def add(self, item: Any) -> None:
        """Add one row of the row form."""
        shape = _shape_of(item)
        size = self.fill(item, shape)
        if self.size is None:
            self.size, self.shape = size, shape
        elif self.size != size:
            raise invalid(f"Expecting tensor size: {self.size} but got: {size}")
        elif self.shape != shape:
            raise invalid(f"Expecting shape {shape_text(self.shape)} but got: {shape_text(shape)}")

    def fill(self, item: Any, shape: list[int]) -> int:
        """Add the leaves of a nested list and return their number."""
        before = len(self.leaves)
        pending = [(item, 0)]
        while pending:
            value, level = pending.pop()
            if type(value) is not list:
                if level != len(shape):
                    raise invalid(
                        f"JSON Value: {debug_string(value)} found at incorrect level: "
                        f"{level + 1} in the JSON DOM. Expected at level: {len(shape)}"
                    )
                self.leaves.append(_leaf(value, self.number))
                continue
            if level >= len(shape):
                raise invalid(
                    f"Encountered list at unexpected level: {level} expected < {len(shape)}"
                )
            if len(value) != shape[level]:
                raise invalid(
                    f"Encountered list at unexpected size: {len(value)} at level: {level} "
                    f"expected size: {shape[level]}"
                )
            pending.extend((child, level + 1) for child in reversed(value))
        return len(self.leaves) - before

    def array(self, alias: str, shape: list[int]) -> npt.NDArray[Any]:
        """Return the finished tensor; leaves beyond its shape are dropped."""
        if len(shape) > MAX_RANK:
            raise invalid(f"tensor parsing error: {alias}")
        flat = flat_array(self.leaves, DTYPES[self.number])
        return flat[: int(np.prod(shape, dtype=np.int64))].reshape(shape)


def _shape_of(value: Any) -> list[int]:
    shape = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def json_type(value: Any) -> str:
    """Return RapidJSON's name for the type of a value."""
    if isinstance(value, JsonObject):
        return "Object"
    if isinstance(value, bool):
        return "True" if value else "False"
    names = {list: "Array", bytes: "String", type(None): "Null"}
    return names.get(type(value), "Number")


def is_base64_object(value: Any) -> bool:
    """Return True for `{"b64": "..."}` and nothing else."""
    return (
        isinstance(value, JsonObject)
        and len(value) == 1
        and value[0][0] == b"b64"
        and isinstance(value[0][1], bytes)
    )


def decode_base64(value: JsonObject) -> bytes:
    """Return the bytes of a base64 object: standard alphabet, complete or no padding.

    Raises:
        StatusError: The value is not base64.
    """
    text = _BASE64_SPACE.sub(b"", value[0][1])
    match = _BASE64.match(text)
    assert match is not None
    data, padding = match.group(), text[match.end() :]
    missing = -len(data) % 4
    if missing == 3 or padding not in (b"", b"=" * missing, b"." * missing):
        raise invalid("Unable to base64 decode")
    return base64.b64decode(data + b"=" * missing)


def _leaf(value: Any, number: int) -> Any:
    name = dtype_name(number)
    if isinstance(value, JsonObject):
        if name == "string":
            if not is_base64_object(value):
                raise shown(value, "not formatted correctly for base64 data")
            return decode_base64(value)
        raise _type_error(value, name)
    kind = type(value)
    if name in ("float", "double"):
        right = kind in NUMBERS
    elif name == "string":
        right = kind is bytes
    elif name == "bool":
        right = kind is bool
    elif name in INT_RANGES:
        right = kind is int and INT_RANGES[name][0] <= value < INT_RANGES[name][1]
    else:
        raise StatusError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {debug_string(value)} to type: {name}",
        )
    if not right:
        raise _type_error(value, name)
    return value


def _type_error(value: Any, name: str) -> StatusError:
    return invalid(
        f"JSON Value: {debug_string(value)} Type: {json_type(value)} "
        f"is not of expected type: {name}"
    )


def row_tensors(instances: list[Any], inputs: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of the row form: one row of each tensor per element.

    Args:
        instances: The elements, at least one.
        inputs: Data types by input name.

    Raises:
        StatusError: The elements do not fit the inputs or each other.
    """
    if not isinstance(instances[0], JsonObject) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    tensors: dict[str, _Tensor] = {}
    named = isinstance(instances[0], JsonObject) and not is_base64_object(instances[0])
    only = next(iter(inputs))
    for index, element in enumerate(instances):
        is_named = isinstance(element, JsonObject) and not is_base64_object(element)
        if named and not is_named:
            raise invalid(f"Expecting object but got list at item {index} of input list")
        if is_named and not named:
            raise invalid(f"Expecting value/list but got object at item {index} of input list")
        if named:
            _named_row(element, index, inputs, tensors)
            continue
        try:
            tensors.setdefault(only, _Tensor(inputs[only])).add(element)
        except StatusError as exc:
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. Error: "
                f"{exc.code.name}: {exc.message}"
            ) from None
    return {
        alias: tensor.array(alias, [len(instances), *tensor.shape])
        for alias, tensor in tensors.items()
    }


def _named_row(
    element: JsonObject, index: int, inputs: Mapping[str, int], tensors: dict[str, _Tensor]
) -> None:
    keys = set()
    for key, value in element:
        alias = _text(key.partition(b"\0")[0])
        keys.add(alias)
        try:
            if alias not in inputs:
                raise invalid(f"JSON object: does not have named input: {alias}")
            tensors.setdefault(alias, _Tensor(inputs[alias])).add(value)
        except StatusError as exc:
            raise invalid(
                f"Failed to process element: {index} key: {alias} of 'instances' list. Error: "
                f"{exc.code.name}: {exc.message}"
            ) from None
    if keys != inputs.keys():
        raise invalid(
            f"Failed to process element: {index} of 'instances' list. JSON object: "
            f"{debug_string(element)} keys must be equal to: {','.join(sorted(inputs))}"
        )


def column_tensors(value: Any, inputs: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of the column form.

    Args:
        value: Value of `inputs` in the request.
        inputs: Data types by input name.

    Raises:
        StatusError: The value does not fit the inputs.
    """
    values: dict[str, Any] = {}
    if not isinstance(value, JsonObject) or is_base64_object(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        values[next(iter(inputs))] = value
    else:
        for alias in inputs:
            try:
                values[alias] = value.first(alias.encode())
            except KeyError:
                raise invalid(f"Missing named input: {alias} in 'inputs' object.") from None
    arrays = {}
    for alias, item in values.items():
        shape = _shape_of(item)
        tensor = _Tensor(inputs[alias])
        tensor.fill(item, shape)
        arrays[alias] = tensor.array(alias, shape)
    return arrays
