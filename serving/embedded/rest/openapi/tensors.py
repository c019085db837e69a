"""Tensors of a signature as JSON: their schemas, and requests that fit them."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from shortlist.clients.contract import DEFAULT_K, K
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES
from shortlist.serving.embedded.api.tensors import TensorParseError, parse_tensor
from shortlist.serving.embedded.rest.json.exact import INT_RANGES

__all__ = ["example_inputs", "has_rows", "input_schemas", "output_schemas", "row_schema"]

_FORMATS: Final = {"float": "float", "double": "double"}
_BASE64: Final = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
}
_MOST_VALUES: Final = 256  # of a fixed shape, in a request made of its types


def input_schemas(definition: messages.SignatureDef) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each input, with its default value if there is one."""
    schemas = {name: _schema(name, info) for name, info in sorted(definition.inputs.items())}
    for name, proto in definition.defaults.items():
        value = _plain(proto)
        if name in schemas and value is not None:
            schemas[name]["default"] = value
    return schemas


def output_schemas(definition: messages.SignatureDef) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each output."""
    return {
        name: _schema(name, info, output=True) for name, info in sorted(definition.outputs.items())
    }


def has_rows(tensors: Mapping[str, messages.TensorInfo]) -> bool:
    """Return whether all tensors have a first dimension of any size, as the row form needs."""
    shapes = [info.tensor_shape for info in tensors.values()]
    return bool(shapes) and all(
        shape.unknown_rank or (shape.dim and shape.dim[0].size < 0) for shape in shapes
    )


def row_schema(schema: Mapping[str, Any]) -> Any:
    """Return the schema of one row of a tensor."""
    return schema.get("items", {})


def example_inputs(
    definition: messages.SignatureDef, sample: messages.PredictRequest | None
) -> dict[str, Any] | None:
    """Return inputs that the signature takes, or None if JSON has no form for one of them.

    Args:
        definition: The signature.
        sample: A request that the signature has answered, if there is one.
    """
    if sample is not None and set(sample.inputs) == set(definition.inputs):
        values = {name: _plain(proto) for name, proto in sample.inputs.items()}
        if None not in values.values():
            return dict(sorted(values.items()))
    values = {name: _made(name, info) for name, info in sorted(definition.inputs.items())}
    return None if None in values.values() else values


def _schema(name: str, info: messages.TensorInfo, *, output: bool = False) -> dict[str, Any]:
    schema = _value_schema(name, info, output=output)
    shape = info.tensor_shape
    text = f"{messages.DataType.Name(info.dtype)} {_shape_text(shape)}"
    if shape.unknown_rank:
        return {"description": text}
    for dim in reversed(shape.dim):
        schema = {"type": "array", "items": schema}
        if dim.size >= 0:
            schema["minItems"] = schema["maxItems"] = dim.size
    return {"description": text, **schema}


def _value_schema(name: str, info: messages.TensorInfo, *, output: bool) -> dict[str, Any]:
    dtype = DTYPES.get(info.dtype)
    if dtype is None:
        return {}
    if dtype.name == "string":
        if output:
            return dict(_BASE64) if name.endswith("_bytes") else {"type": "string"}
        return {"anyOf": [{"type": "string"}, dict(_BASE64)]}
    if dtype.name == "bool":
        return {"type": "boolean"}
    if dtype.name in INT_RANGES:
        low, high = INT_RANGES[dtype.name]
        if dtype.name in ("int32", "int64"):
            return {"type": "integer", "format": dtype.name}
        return {"type": "integer", "minimum": low, "maximum": high - 1}
    if dtype.name in _FORMATS:
        return {"type": "number", "format": _FORMATS[dtype.name]}
    return {"type": "number"} if output else {}


def _shape_text(shape: messages.TensorShapeProto) -> str:
    if shape.unknown_rank:
        return "of any shape"
    sizes = ["?" if dim.size < 0 else str(dim.size) for dim in shape.dim]
    return f"[{', '.join(sizes)}]" if sizes else "scalar"


def _plain(proto: messages.TensorProto) -> Any:
    """Return a tensor's values as JSON has them, or None if it has none for them."""
    try:
        array = parse_tensor(proto)
    except TensorParseError:
        return None
    if array.dtype == np.float32:
        # The shortest digits that give the same float32.
        texts = [np.format_float_scientific(value, unique=True) for value in array.ravel()]
        array = np.array([float(text) for text in texts]).reshape(array.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return None
    if array.dtype.kind in "fiub":
        return array.tolist()
    return _texts(array.tolist()) if array.dtype == object else None


def _texts(value: Any) -> Any:
    """Return nested lists of bytes as text, or None if one is not UTF-8."""
    if isinstance(value, list):
        values = [_texts(item) for item in value]
        return None if None in values else values
    try:
        text: str = value.decode()
    except UnicodeDecodeError:
        return None
    return text


def _made(name: str, info: messages.TensorInfo) -> Any:
    """Return a small value of an input's type and shape, or None if JSON has none."""
    dtype = DTYPES.get(info.dtype)
    if dtype is None:
        return None
    value: Any
    if dtype.name == "string":
        value = "42"
    elif dtype.name == "bool":
        value = False
    elif dtype.name in INT_RANGES:
        value = DEFAULT_K if name == K else 1
    elif dtype.name in _FORMATS:
        value = 1.0
    else:
        return None
    # A size that is open is that of a batch, or of a list.
    sizes = [1 if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
    if math.prod(sizes) > _MOST_VALUES:
        return None
    for size in reversed(sizes):
        value = [value] * size
    return [value] if info.tensor_shape.unknown_rank else value
