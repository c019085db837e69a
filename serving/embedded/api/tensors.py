"""`TensorProto` messages to numpy arrays and back, as TensorFlow reads and writes them."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES, Dtype, dtype_of

__all__ = [
    "MAX_RANK",
    "Admit",
    "MissingStringsError",
    "TensorParseError",
    "decode_varint",
    "encode_tensor",
    "encode_varint",
    "object_array",
    "parse_tensor",
    "shape_text",
]

MAX_RANK: Final = 254  # TensorShape::MaxDimensions()
# A message of a few bytes can ask for any number of repeated values. The real server tries
# to allocate them; the embedded server refuses them as if the allocation had failed.
_MAX_FILLED_BYTES: Final = 16 * 1024 * 1024
_STRING_BYTES: Final = 64  # overhead of one string, here and in the runtime
_DENSE_FIELDS: Final = ("float_val", "double_val")  # as long in the message as in memory
_PACKED_FLOATS: Final = {np.dtype(np.float32): 5, np.dtype(np.float64): 6}


class TensorParseError(ValueError):
    """The message is not a tensor: shape, type and content contradict each other."""


class MissingStringsError(TensorParseError):
    """The shape promises more strings than there are."""


Admit = Callable[[tuple[int, ...], int, int], None]


def parse_tensor(proto: messages.TensorProto, admit: Admit | None = None) -> npt.NDArray[Any]:
    """Return the array that a `TensorProto` holds.

    As in `tensorflow::Tensor::FromProto`, missing numbers repeat the last one (zero if there is
    none), values beyond the shape are ignored, and an unknown rank is a scalar. Strings are
    not repeated, except for one empty string.

    Args:
        proto: The message.
        admit: Called before values are read or filled in, with the shape, the number of values
            that need more memory than they have in the message, and that memory in bytes.

    Raises:
        MissingStringsError: There are fewer strings than the shape says.
        TensorParseError: TensorFlow would not parse the message either.
    """
    dtype = DTYPES.get(proto.dtype)
    if dtype is None:
        raise TensorParseError(f"{proto.dtype} is not a valid tensor type")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if shape and (min(shape) < 0 or len(shape) > MAX_RANK):
        raise TensorParseError(f"{list(shape)} is not a valid tensor shape")
    size = math.prod(shape)
    is_string = dtype.field == "string_val"
    if size and proto.tensor_content:
        if admit is not None:
            admit(shape, *((size, size * _STRING_BYTES) if is_string else (0, 0)))
        return _from_content(proto.tensor_content, dtype, shape, size)
    carried = len(getattr(proto, dtype.field))
    if carried < size:
        if is_string and (carried or size > 1):
            raise MissingStringsError(f"{carried} strings for shape {shape_text(shape)}")
        if size * dtype.numpy.itemsize > _MAX_FILLED_BYTES:
            raise TensorParseError(f"a tensor of shape {list(shape)} does not fit into memory")
    if admit is not None:
        admit(shape, *_expansion(shape, size, carried, dtype))
    values = _values(proto, dtype)
    if len(values) < size:
        filled = np.empty(size, values.dtype)
        filled[: len(values)] = values
        empty: Any = b"" if is_string else 0
        filled[len(values) :] = values[-1] if len(values) else empty
        values = filled
    try:
        return values[:size].reshape(shape)
    except ValueError as exc:  # no elements, but dimensions whose product numpy cannot hold
        raise TensorParseError(f"{list(shape)} is not a valid tensor shape") from exc


def _expansion(shape: tuple[int, ...], size: int, carried: int, dtype: Dtype) -> tuple[int, int]:
    """Return the number of values that need more memory than in the message, and how much."""
    if not size:
        # Empty, but a sum over an axis of no elements has as many as the other axes.
        return max(carried, math.prod(filter(None, shape))), carried * _STRING_BYTES
    count = max(size, carried)
    if dtype.field == "string_val":
        return count, count * _STRING_BYTES
    if dtype.field in _DENSE_FIELDS and carried >= size:
        return 0, 0
    return count, count * dtype.numpy.itemsize


def _values(proto: messages.TensorProto, dtype: Dtype) -> npt.NDArray[Any]:
    """Return the values of the typed field as a flat array."""
    field = getattr(proto, dtype.field)
    if dtype.field == "string_val":
        return object_array(field)
    if dtype.field == "half_val":
        return np.array(field, np.int32).astype(np.uint16).view(dtype.numpy)
    if dtype.field == "int_val":
        # int_val is 32 bits wide; narrower types keep the low bits.
        return np.array(field, np.int32).astype(dtype.numpy)
    if dtype.field in ("scomplex_val", "dcomplex_val"):
        part = np.float32 if dtype.field == "scomplex_val" else np.float64
        parts = np.array(field, part)
        return parts[: len(parts) // 2 * 2].view(dtype.numpy)
    return np.array(field, dtype.numpy)


def _from_content(
    content: bytes, dtype: Dtype, shape: tuple[int, ...], size: int
) -> npt.NDArray[Any]:
    if dtype.numpy == np.object_:
        return object_array(_decode_strings(content, size)).reshape(shape)
    if len(content) != size * dtype.numpy.itemsize:
        raise TensorParseError(f"tensor_content has {len(content)} bytes for shape {list(shape)}")
    if dtype.numpy == np.bool_:
        return (np.frombuffer(content, np.uint8) != 0).reshape(shape)
    return np.frombuffer(content, dtype.numpy).reshape(shape)


def _decode_strings(content: bytes, size: int) -> list[bytes]:
    """Return the strings in tensor_content: all lengths as varints, then all bytes."""
    lengths, position = [], 0
    for _ in range(size):
        length, position = decode_varint(content, position)
        if length is None:
            raise TensorParseError("tensor_content ends within its list of lengths")
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise TensorParseError("the lengths in tensor_content do not add up to its size")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings


def object_array(values: Sequence[bytes]) -> npt.NDArray[Any]:
    """Return a flat array of byte strings."""
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as TensorFlow's error messages spell it, such as `[2,3]`."""
    return f"[{','.join(map(str, shape))}]"


def encode_tensor(array: npt.NDArray[Any], *, as_content: bool = False) -> bytes:
    """Return the serialised `TensorProto` of an array, as the real server answers it.

    Args:
        array: Output of the runtime.
        as_content: Write `tensor_content` instead of the typed field
            (`--enable_serialization_as_tensor_content`).
    """
    if not as_content:
        number = _PACKED_FLOATS.get(array.dtype)
        if number is not None:
            # The packed field of floats is their little-endian bytes: no conversion is needed.
            head = _head(1 if number == 5 else 2, array.shape)
            if not array.size:
                return head
            data = array.tobytes()
            return b"".join((head, bytes((number << 3 | 2,)), encode_varint(len(data)), data))
    dtype = dtype_of(array)
    values = messages.TensorProto()
    if as_content:
        values.tensor_content = _content(array, dtype)
    else:
        getattr(values, dtype.field).extend(_field_values(array, dtype))
    return _head(dtype.number, array.shape) + values.SerializeToString()


@lru_cache(1024)
def _head(number: int, shape: tuple[int, ...]) -> bytes:
    """Return the fields dtype and tensor_shape."""
    dims = b"".join(
        b"\x12" + bytes((len(dim),)) + dim
        for dim in (b"\x08" + encode_varint(size) if size else b"" for size in shape)
    )
    return b"".join((b"\x08", encode_varint(number), b"\x12", encode_varint(len(dims)), dims))


def _field_values(array: npt.NDArray[Any], dtype: Dtype) -> list[Any]:
    flat = array.ravel()
    if dtype.field == "half_val":
        return flat.view(np.uint16).tolist()
    if dtype.field == "scomplex_val":
        return flat.view(np.float32).tolist()
    if dtype.field == "dcomplex_val":
        return flat.view(np.float64).tolist()
    return flat.tolist()


def _content(array: npt.NDArray[Any], dtype: Dtype) -> bytes:
    if dtype.field != "string_val":
        return array.tobytes()
    strings = array.ravel().tolist()
    return b"".join([encode_varint(len(value)) for value in strings] + strings)


def encode_varint(value: int) -> bytes:
    """Return a non-negative number in protobuf's base-128 form."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes, position: int) -> tuple[int | None, int]:
    """Return the number at `position` (None if it is incomplete) and the position after it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return None, position
