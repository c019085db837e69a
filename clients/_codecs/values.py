"""Python and NumPy values to `TensorProto`, without TensorFlow.

NumPy is imported only if arrays are used. Numbers travel as one block of memory
(`tensor_content`), never element by element.
"""

import math
import struct
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, TypeGuard

from shortlist.clients._arguments import number_remedy, shown, text_remedy, whole_remedy
from shortlist.clients.wire.dtypes import Dtype, by_name, by_numpy_name, numpy_dtype
from shortlist.clients.wire.tensor_pb2 import TensorProto

__all__ = [
    "all_plain",
    "all_str",
    "cast_array",
    "check_kind",
    "feature_values",
    "flatten",
    "is_array",
    "nest",
    "to_tensor_proto",
]

_SMALL_INT: Final = range(-(2**31), 2**31)
_NIBBLES: Final = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def is_array(value: object) -> TypeGuard[Any]:
    """Return whether `value` is a NumPy array or scalar, without importing NumPy."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def all_str(values: list[Any]) -> bool:
    """Return whether the values are strings; `False` for none."""
    return {*map(type, values)} == {str}


def all_plain(values: list[Any]) -> bool:
    """Return whether all values are Python's own scalars that JSON has, too."""
    return {*map(type, values)} <= {str, float, int, bool}


def to_tensor_proto(value: object, dtype: str | None = None) -> TensorProto:
    """Return a tensor from a Python scalar, nested sequences of scalars, or a NumPy array.

    Args:
        value: Scalar, rectangular sequences or array.
        dtype: TensorFlow's name of the element type, such as `DT_INT64`. Without it, an array
            keeps its own type, and Python's `int` becomes int32 (int64 if necessary),
            `float` float32, `complex` complex128, as in `tf.make_tensor_proto`.

    Raises:
        ValueError: The value is ragged, of mixed or unknown types, or does not fit `dtype`.
    """
    chosen = None
    if dtype is not None and (chosen := by_name(dtype)) is None:
        raise ValueError(
            f"tensors of type {dtype} cannot be sent; they exist only inside the server"
        )
    if is_array(value):
        return _array_to_tensor_proto(value, chosen)
    shape, flat = flatten(value)
    inferred = chosen or _infer(flat)
    tensor = TensorProto(dtype=inferred.name)
    tensor.tensor_shape.SetInParent()  # a scalar's is empty, but set
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if inferred.kind == "s":
        encoded = map(str.encode, flat) if all_str(flat) else map(_to_bytes, flat)
        tensor.string_val.extend(encoded)
        return tensor
    check_kind(flat, inferred)
    if inferred.kind == "i" and inferred.char is None:
        low, high = _NIBBLES[inferred.numpy]
        if not all(low <= item <= high for item in flat):
            raise ValueError(f"a value does not fit {inferred.name}: {low} to {high}")
        return _array_to_tensor_proto(_with_numpy(flat, inferred).reshape(shape), inferred)
    try:
        content = _pack(flat, inferred)
    except (struct.error, OverflowError, TypeError) as exc:
        raise ValueError(f"a value does not fit {inferred.name}: {exc}") from exc
    _set_content(tensor, content, inferred, len(flat))
    return tensor


def feature_values(name: str, value: object) -> list[Any]:
    """Return the values of one feature of an example: all strings (or bytes) or all numbers.

    Raises:
        ValueError: The values are mixed, nested or of other types.
    """
    shape, values = flatten(value)
    if len(shape) > 1 or (
        not all(isinstance(item, str | bytes) for item in values)
        and not all(isinstance(item, int | float) for item in values)
    ):
        raise ValueError(f"feature {name!r} must be all numbers or all strings, got {value!r}")
    return values


def flatten(value: object) -> tuple[list[int], list[Any]]:
    """Return shape and row-major elements of nested lists or tuples.

    Arrays and NumPy's numbers in the lists become Python's.

    Raises:
        ValueError: The nesting is ragged.
    """
    if type(value) is list and {*map(type, value)} == {list} and len({*map(len, value)}) == 1:
        flat = list(chain.from_iterable(value))
        if all_plain(flat):  # a matrix, such as histories, in a tenth of the time
            return [len(value), len(value[0])], flat
    shape: list[int] = []
    level = _without_arrays([value])
    while level and isinstance(level[0], list | tuple):
        size = len(level[0])
        for item in level:
            if not isinstance(item, list | tuple) or len(item) != size:
                raise ValueError(
                    f"ragged value: at depth {len(shape)} one entry has {size} elements and "
                    f"another is {shown(item)}; pad it to a rectangle"
                )
        shape.append(size)
        level = _without_arrays([element for item in level for element in item])
    for item in level:
        if isinstance(item, list | tuple):
            raise ValueError(f"ragged value: {shown(item)} is next to a scalar; pad it")
    return shape, level


def _without_arrays(level: list[Any]) -> list[Any]:
    if any(hasattr(kind, "tolist") for kind in {*map(type, level)}):
        return [item.tolist() if hasattr(item, "tolist") else item for item in level]
    return level


def nest(flat: list[Any], shape: Sequence[int]) -> Any:
    """Return row-major elements as nested lists of `shape`; a scalar as it is."""
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _infer(flat: list[Any]) -> Dtype:
    for types, name in (
        ((str, bytes), "DT_STRING"),
        ((bool,), "DT_BOOL"),
        ((int,), "DT_INT32"),
        ((int, float), "DT_FLOAT"),
        ((int, float, complex), "DT_COMPLEX128"),
    ):
        if all(isinstance(item, types) for item in flat):
            if name == "DT_INT32" and not all(item in _SMALL_INT for item in flat):
                name = "DT_INT64"
            dtype = by_name(name if flat else "DT_FLOAT")
            if dtype is None:
                raise AssertionError(name)
            return dtype
    kinds = ", ".join(sorted({type(item).__name__ for item in flat}))
    raise ValueError(f"cannot make one tensor of: {kinds}; use only numbers, or only str and bytes")


_FITS: Final[dict[str, tuple[type, ...]]] = {
    "b": (bool,),
    "i": (int,),
    "f": (int, float),
    "x": (int, float),
    "c": (int, float, complex),
    "s": (str, bytes),
}


_KINDS: Final = {
    "b": "True or False",
    "i": "whole numbers",
    "f": "numbers",
    "x": "numbers",
    "c": "numbers",
    "s": "strings or bytes",
}
_REMEDIES: Final[dict[str, Callable[[object], str]]] = {
    "i": whole_remedy,
    "f": number_remedy,
    "s": text_remedy,
}


def check_kind(flat: Sequence[Any], dtype: Dtype) -> None:
    """Refuse elements that Python would convert but the server would not, such as 1.5 for an int.

    Raises:
        ValueError: An element has the wrong type.
    """
    types = _FITS[dtype.kind]
    if {*map(type, flat)} <= {*types}:
        return
    for item in flat:
        if not isinstance(item, types) or (isinstance(item, bool) and dtype.kind != "b"):
            remedy = _REMEDIES[dtype.kind](item) if dtype.kind in _REMEDIES else ""
            raise ValueError(
                f"{shown(item)} does not fit {dtype.name} ({_KINDS[dtype.kind]}){remedy}"
            )


def _to_bytes(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise ValueError(f"{shown(item)} does not fit DT_STRING (strings or bytes){text_remedy(item)}")


def _pack(flat: list[Any], dtype: Dtype) -> bytes:
    if dtype.kind == "c":
        parts = [part for item in flat for part in (complex(item).real, complex(item).imag)]
        return struct.pack(f"<{len(parts)}{dtype.char}", *parts)
    if dtype.name == "DT_BFLOAT16":
        return b"".join(_bfloat16(item) for item in flat)
    if dtype.char is None:
        return bytes(_with_numpy(flat, dtype).tobytes())
    return struct.pack(f"<{len(flat)}{dtype.char}", *flat)


def _bfloat16(item: float) -> bytes:
    (bits,) = struct.unpack("<I", struct.pack("<f", item))
    if item == item:  # round half to even, as TensorFlow does; a NaN would turn into infinity
        bits += 0x7FFF + ((bits >> 16) & 1)
    return struct.pack("<H", (bits >> 16) & 0xFFFF)


def _set_content(tensor: TensorProto, content: bytes, dtype: Dtype, size: int) -> None:
    """Store packed numbers as `tf.make_tensor_proto` does: a single one in the typed field."""
    if size > 1:
        tensor.tensor_content = content
    elif size == 1 and dtype.layout == "bytes":
        tensor.float8_val = content
    elif size == 1:
        char = "H" if dtype.field == "half_val" else dtype.char or "b"
        getattr(tensor, dtype.field).extend(
            struct.unpack(f"<{len(content) // struct.calcsize(char)}{char}", content)
        )


def _array_to_tensor_proto(value: Any, chosen: Dtype | None) -> TensorProto:
    import numpy as np

    array = np.asarray(value)
    own = by_name("DT_STRING") if array.dtype.kind in "OSU" else by_numpy_name(array.dtype.name)
    if own is None:
        raise ValueError(f"NumPy arrays of type {array.dtype} cannot be sent")
    dtype = chosen or own
    tensor = TensorProto(dtype=dtype.name)
    tensor.tensor_shape.SetInParent()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if (dtype.kind == "s") != (own.kind == "s"):
        raise ValueError(f"an array of type {array.dtype} does not fit {dtype.name}")
    if dtype.kind == "s":
        tensor.string_val.extend([_to_bytes(item) for item in array.ravel().tolist()])
        return tensor
    array = cast_array(array, dtype)
    if dtype.kind == "i" and dtype.char is None:
        tensor.int_val.extend(array.astype(np.int32).ravel().tolist())
        return tensor
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    _set_content(tensor, array.tobytes(), dtype, array.size)
    return tensor


def cast_array(array: Any, dtype: Dtype) -> Any:
    """Return an array of `dtype`'s own NumPy type.

    Floats may be rounded (float64 to float32), integers must be in range; nothing is converted
    to an integer or a bool.

    Raises:
        ValueError: The values cannot be converted.
    """
    import numpy as np

    target = numpy_dtype(dtype)
    if array.dtype == target:
        return array
    if array.dtype.kind in "iu" and target.kind in "iu":
        limits = np.iinfo(target)
        if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise ValueError(f"a value of the {array.dtype} array does not fit {dtype.name}")
    elif not np.can_cast(array.dtype, target, "same_kind"):
        raise ValueError(
            f"an array of type {array.dtype} does not fit {dtype.name}; convert it with "
            f".astype({target.name!r})"
        )
    return array.astype(target)


def _with_numpy(flat: list[Any], dtype: Dtype) -> Any:
    import numpy as np

    return np.array(flat, dtype=numpy_dtype(dtype))
