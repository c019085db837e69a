"""Tensors as they arrived, decoded only as far as somebody asks.

Both kinds have the same methods: `WireTensor` reads gRPC's messages, `JsonTensor` REST's JSON.
"""

import math
import struct
from typing import Any, Final, Protocol

from clients._dtypes import Dtype, by_name
from clients.codec import dtype_of, flatten, numpy_dtype
from clients.wire.packed_pb2 import PackedTensorProto
from clients.wire.tensor_pb2 import TensorProto

__all__ = ["JsonTensor", "Tensor", "WireTensor"]

_NOTHING: Final[dict[str, Any]] = {"b": False, "i": 0, "f": 0.0, "x": 0.0, "c": 0j, "s": b""}


class Tensor(Protocol):
    """One output of a servable."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        ...

    def row(self, index: int, limit: int) -> list[Any]:
        """The first `limit` elements of row `index` of a matrix."""
        ...

    def value(self) -> Any:
        """Nested lists, or a scalar; strings as `bytes` (wire) or `str` (JSON)."""
        ...

    def array(self, dtype: str | None = None) -> Any:
        """A NumPy array, of `dtype` where the transport does not tell."""
        ...


def nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    """Nested lists of `shape` from row-major elements; the element itself for a scalar."""
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [nest(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


class WireTensor:
    """A tensor of a gRPC answer."""

    __slots__ = ("_proto", "dtype", "shape", "size")

    def __init__(self, proto: PackedTensorProto) -> None:
        """Wraps a message.

        Raises:
            ValueError: Its dtype has no value outside a server, or its shape is not one.
        """
        self._proto = proto
        self.dtype: Dtype = dtype_of(proto.dtype)
        self.shape = tuple(dim.size for dim in proto.tensor_shape.dim)
        if any(size < 0 for size in self.shape):
            raise ValueError(f"the shape {self.shape} of a tensor is negative")
        self.size = math.prod(self.shape)

    def row(self, index: int, limit: int) -> list[Any]:
        """See `Tensor`."""
        width = self.shape[1]
        start = index * width
        stop = start + min(limit, width)
        if self.dtype.kind == "s" and len(self._proto.string_val) == self.size:
            return list(self._proto.string_val[start:stop])
        if self.dtype.name == "DT_FLOAT":
            block = self._block()
            if block is not None and len(block) == 4 * self.size:
                return memoryview(block)[4 * start : 4 * stop].cast("f").tolist()
        return self._flat()[start:stop]

    def value(self) -> Any:
        """See `Tensor`."""
        return nest(self._flat(), self.shape)

    def array(self, dtype: str | None = None) -> Any:
        """See `Tensor`; `dtype` is ignored, as the message tells."""
        del dtype
        import numpy as np

        if self.dtype.kind == "s":
            strings = np.empty(self.size, dtype=object)
            strings[:] = self._flat()
            return strings.reshape(self.shape)
        wanted = numpy_dtype(self.dtype)
        block = self._block()
        if block is not None:
            found = np.frombuffer(block, wanted)
        else:
            numbers = _varints(b"".join(getattr(self._proto, self.dtype.field)))
            if self.dtype.field == "half_val":
                found = numbers.astype(np.uint16).view(wanted)
            else:
                found = numbers.astype(wanted)
        if found.size > self.size:
            raise ValueError(f"a tensor of shape {self.shape} holds {found.size} values")
        if found.size < self.size:  # TensorFlow leaves out repetitions of the last value
            last = found[-1] if found.size else wanted.type(0)
            found = np.concatenate([found, np.full(self.size - found.size, last, wanted)])
        return found.reshape(self.shape)

    def _block(self) -> bytes | None:
        """The numbers as one little-endian block; None where they are varints."""
        if self._proto.tensor_content:
            return self._proto.tensor_content
        if self.dtype.layout == "varint":
            return None
        chunks = getattr(self._proto, self.dtype.field)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _flat(self) -> list[Any]:
        if self.dtype.char is None and self.dtype.kind in "xi":
            # Floats of eight bits and integers of less are NumPy's business.
            numbers: list[Any] = self.array().ravel().tolist()
        elif self.dtype.kind == "s":
            numbers = list(self._proto.string_val)
        else:
            numbers = self._numbers()
        if len(numbers) > self.size:
            raise ValueError(f"a tensor of shape {self.shape} holds {len(numbers)} values")
        last = numbers[-1] if numbers else _NOTHING[self.dtype.kind]
        return numbers + [last] * (self.size - len(numbers))

    def _numbers(self) -> list[Any]:
        block = self._block()
        if block is None:
            numbers = self._parsed()
            if self.dtype.field != "half_val":
                return numbers
            block = struct.pack(f"<{len(numbers)}H", *numbers)
        if self.dtype.name == "DT_BFLOAT16":
            halves = b"".join(b"\0\0" + block[i : i + 2] for i in range(0, len(block), 2))
            return list(memoryview(halves).cast("f"))
        char = self.dtype.char or ""
        count, rest = divmod(len(block), struct.calcsize(char))
        if rest:
            raise ValueError(f"a {self.dtype.name} tensor of {len(block)} bytes is torn")
        parts = list(struct.unpack(f"<{count}{char}", block))
        if self.dtype.kind != "c":
            return parts
        return [complex(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]

    def _parsed(self) -> list[Any]:
        """Varints, unpacked by protobuf itself."""
        only = PackedTensorProto()
        getattr(only, self.dtype.field).extend(getattr(self._proto, self.dtype.field))
        return list(getattr(TensorProto.FromString(only.SerializeToString()), self.dtype.field))


def _varints(raw: bytes) -> Any:
    """Protobuf's varints as an int64 array (uint64 wraps round), without a loop in Python."""
    import numpy as np

    octets = np.frombuffer(raw, np.uint8)
    if not octets.size or octets.max() < 0x80:
        return octets.astype(np.int64)
    ends = np.flatnonzero(octets < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(octets.size) - np.repeat(starts, ends - starts + 1)
    parts = (octets & 0x7F).astype(np.uint64) << (place * 7).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)


class JsonTensor:
    """A tensor of a REST answer; `{"b64": …}` stands for bytes."""

    __slots__ = ("_value", "shape")

    def __init__(self, value: Any) -> None:
        self._value = value
        sizes = []
        while isinstance(value, list):
            sizes.append(len(value))
            if not value:
                break
            value = value[0]
        self.shape = tuple(sizes)

    def row(self, index: int, limit: int) -> list[Any]:
        """See `Tensor`."""
        found: list[Any] = self._value[index][:limit]
        return found

    def value(self) -> Any:
        """See `Tensor`."""
        return self._value

    def array(self, dtype: str | None = None) -> Any:
        """See `Tensor`."""
        import numpy as np

        known = by_name(dtype) if dtype is not None else None
        if known is None:
            return np.array(self._value)
        if known.kind != "s":
            return np.array(self._value, dtype=numpy_dtype(known))
        shape, flat = flatten(self._value)
        strings = np.empty(len(flat), dtype=object)
        strings[:] = flat
        return strings.reshape(shape)
