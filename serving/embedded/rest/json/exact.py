"""Tensors from JSON, value by value, with the error texts of the real server.

The rules are those of `tensorflow_serving/util/json_tensor.cc`; documents come from
`shortlist.serving.embedded.rest.json.parser`.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shortlist.serving.embedded.api.dtypes import DTYPES, dtype_name
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.rest.json.parser import JsonError, JsonObject, parse_json
from shortlist.serving.embedded.rest.json.writer import debug_string

__all__ = [
    "INT_RANGES",
    "MAX_RANK",
    "NUMBERS",
    "column_tensors",
    "decode_base64",
    "floats",
    "integers",
    "is_base64_object",
    "json_type",
    "parse_object",
    "row_tensors",
    "shown",
    "signature_name_of",
]

MAX_RANK: Final = 254  # TensorShape::MaxDimensions()
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
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*")
_BASE64_SPACE: Final = re.compile(rb"[ \t\n\v\f\r]+")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def parse_object(body: bytes) -> JsonObject:
    """The JSON object that a request body holds.

    Raises:
        StatusError: It is no JSON, or no object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = parse_json(body)
    except JsonError as exc:
        raise invalid(f"JSON Parse error: {exc}") from None
    if not isinstance(document, JsonObject):
        raise invalid(f"JSON Value: {debug_string(document)} Is not object")
    return document


def signature_name_of(document: JsonObject) -> str:
    """The request's signature name, empty if it names none.

    Raises:
        StatusError: It is no string.
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
    """An error that begins with the value it is about."""
    return invalid(f"JSON Value: {debug_string(value)} {message}")


def floats(leaves: list[Any], numpy_type: npt.DTypeLike) -> npt.NDArray[Any]:
    """A flat array of floats or doubles; what a float cannot hold is infinite."""
    doubles = np.array(leaves, np.float64)
    if numpy_type == np.float64:
        return doubles
    with np.errstate(over="ignore"):  # beyond float's range is infinity, as in C++
        return doubles.astype(np.float32)


def integers(leaves: list[Any], name: str, numpy_type: npt.DTypeLike) -> npt.NDArray[Any]:
    """A flat array of integers; types narrower than 32 bits keep the low ones."""
    if name == "uint64":
        return np.array(leaves, np.uint64)
    # Narrow types pass through 32 bits and keep the low ones, as in TensorProto.
    return np.array(leaves, np.int64).astype(numpy_type)


class _Tensor:
    """Leaves gathered so far for one input."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.leaves: list[Any] = []
        self.size: int | None = None
        self.shape: list[int] = []

    def add(self, item: Any) -> None:
        """Adds one row of the row form."""
        shape = _shape_of(item)
        size = self.fill(item, shape)
        if self.size is None:
            self.size, self.shape = size, shape
        elif self.size != size:
            raise invalid(f"Expecting tensor size: {self.size} but got: {size}")
        elif self.shape != shape:
            raise invalid(
                f"Expecting shape {_shown_shape(self.shape)} but got: {_shown_shape(shape)}"
            )

    def fill(self, item: Any, shape: list[int]) -> int:
        """Adds the leaves of a nested list; returns how many."""
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
        """The finished tensor; leaves beyond its shape are dropped."""
        if len(shape) > MAX_RANK:
            raise invalid(f"tensor parsing error: {alias}")
        dtype = DTYPES[self.number]
        flat = _leaves_of_bytes(self.leaves, dtype.name, dtype.numpy)
        return flat[: int(np.prod(shape, dtype=np.int64))].reshape(shape)


def _leaves_of_bytes(leaves: list[Any], name: str, numpy_type: npt.DTypeLike) -> npt.NDArray[Any]:
    if name == "string":
        array = np.empty(len(leaves), object)
        array[:] = leaves
        return array
    if name in ("float", "double"):
        return floats(leaves, numpy_type)
    if name == "bool":
        return np.array(leaves, bool)
    return integers(leaves, name, numpy_type)


def _shape_of(value: Any) -> list[int]:
    shape = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _shown_shape(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def json_type(value: Any) -> str:
    """RapidJSON's name for the type of a value."""
    if isinstance(value, JsonObject):
        return "Object"
    if isinstance(value, bool):
        return "True" if value else "False"
    names = {list: "Array", bytes: "String", type(None): "Null"}
    return names.get(type(value), "Number")


def is_base64_object(value: Any) -> bool:
    """Whether it is `{"b64": "..."}` and nothing else."""
    return (
        isinstance(value, JsonObject)
        and len(value) == 1
        and value[0][0] == b"b64"
        and isinstance(value[0][1], bytes)
    )


def decode_base64(value: JsonObject) -> bytes:
    """The bytes of a base64 object: standard alphabet, padding optional but right if there.

    Raises:
        StatusError: It is not base64.
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
    """Tensors of the row form: one row of each for every element.

    Args:
        instances: The elements, at least one.
        inputs: Data types by input name.

    Raises:
        StatusError: The elements do not fit the inputs or one another.
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
    """Tensors of the column form.

    Args:
        value: What the request has under `inputs`.
        inputs: Data types by input name.

    Raises:
        StatusError: The value does not fit the inputs.
    """
    given: dict[str, Any] = {}
    if not isinstance(value, JsonObject) or is_base64_object(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        given[next(iter(inputs))] = value
    else:
        for alias in inputs:
            try:
                given[alias] = value.first(alias.encode())
            except KeyError:
                raise invalid(f"Missing named input: {alias} in 'inputs' object.") from None
    arrays = {}
    for alias, item in given.items():
        shape = _shape_of(item)
        tensor = _Tensor(inputs[alias])
        tensor.fill(item, shape)
        arrays[alias] = tensor.array(alias, shape)
    return arrays
