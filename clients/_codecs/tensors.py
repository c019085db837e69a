"""Received tensors, decoded on demand: `WireTensor` for gRPC messages, `JsonTensor` for JSON."""

import math
import operator
import struct
from array import array
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from shortlist.clients._codecs.values import flatten, nest
from shortlist.clients.wire.dtypes import Dtype, by_name, by_number, numpy_dtype
from shortlist.clients.wire.packed_pb2 import PackedTensorProto
from shortlist.clients.wire.tensor_pb2 import TensorProto, TensorShapeProto

__all__ = ["JsonTensor", "Tensor", "WireTensor", "from_tensor_proto"]

_MAX_RANK: Final = 254  # TensorFlow's
_MAX_FILLED: Final = 1_000_000  # values; otherwise a few bytes could fill the memory
_MAX_LISTS: Final = 4_000_000  # 64 bytes each
_NOTHING: Final[dict[str, Any]] = {"b": False, "i": 0, "f": 0.0, "x": 0.0, "c": 0j, "s": b""}


@lru_cache(maxsize=256)
def _shape(raw: bytes) -> tuple[tuple[int, ...], int]:
    """Return the sizes of the dimensions and their product, from a `TensorShapeProto`."""
    try:
        shape = tuple(dim.size for dim in TensorShapeProto.FromString(raw).dim)
    except DecodeError as exc:
        raise ValueError(f"the shape of a tensor is unreadable: {exc}") from exc
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape {shape} of a tensor is negative")
    size = math.prod(shape)
    # Rows without values would still be as many lists.
    if len(shape) > _MAX_RANK or (not size and math.prod(filter(None, shape)) > _MAX_FILLED):
        raise ValueError("the shape of a tensor has too many dimensions or empty rows")
    return shape, size


@lru_cache(maxsize=64)
def _floats(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}f")


class Tensor(Protocol):
    """One output of a servable."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        ...

    def numbers(self, limit: int) -> list[tuple[float, ...]]:
        """Return the first `limit` numbers of each row of a matrix.

        Raises:
            ValueError: The values are not numbers, or the rows differ.
        """
        ...

    def texts(self, limit: int) -> list[tuple[str, ...]]:
        """Return the first `limit` strings of each row of a matrix; whole numbers as strings.

        Raises:
            ValueError: The values are neither UTF-8 strings nor whole numbers, or the rows differ.
        """
        ...

    def value(self) -> Any:
        """Return nested lists or a scalar; strings as `bytes` (gRPC) or `str` (REST)."""
        ...

    def array(self, dtype: str | None = None) -> Any:
        """Return a NumPy array, of type `dtype` if the transport does not send the type."""
        ...


class WireTensor:
    """A tensor of a gRPC answer."""

    __slots__ = ("_cached", "_proto", "dtype", "shape", "size")

    def __init__(self, proto: PackedTensorProto) -> None:
        """Wrap a message.

        Raises:
            ValueError: The dtype has no value outside a server, or the shape is not valid.
        """
        self._proto = proto
        dtype = by_number(proto.dtype)
        if dtype is None:
            raise ValueError(
                f"a tensor of type number {proto.dtype} has no value outside the server"
            )
        self.dtype: Dtype = dtype
        self.shape, self.size = _shape(proto.tensor_shape)
        self._cached: bytes | None = None

    def serialized(self) -> bytes:
        """Return the bytes of the `TensorProto`."""
        data: bytes = self._proto.SerializeToString()
        return data

    def numbers(self, limit: int) -> list[tuple[float, ...]]:
        """Return the first `limit` numbers of each row."""
        count, width = self.shape
        stop = min(limit, width)
        if self.dtype.name == "DT_FLOAT" and width:
            block = self._block()
            if block is not None and len(block) == 4 * self.size:
                read = _floats(stop).unpack_from
                return [read(block, 4 * i) for i in range(0, self.size, width)]
        if self.dtype.kind not in "fix":
            raise ValueError(f"expected numbers, got {self.dtype.name}")
        return [tuple(row[:stop]) for row in self.value()] if width else [()] * count

    def texts(self, limit: int) -> list[tuple[str, ...]]:
        """Return the first `limit` strings of each row."""
        if self.dtype.kind not in "si":
            raise ValueError(f"expected strings, got {self.dtype.name}")
        count, width = self.shape
        if not width:
            return [()] * count
        stop = min(limit, width)
        if self.dtype.kind == "i":
            return [tuple(map(str, row[:stop])) for row in self.value()]
        values: Any = self._proto.string_val
        if len(values) != self.size:
            values = self._flat()
        return [tuple(map(bytes.decode, values[i : i + stop])) for i in range(0, self.size, width)]

    def value(self) -> Any:
        """Return nested lists or a scalar."""
        lists = sum(accumulate(self.shape[:-1], operator.mul))
        if lists > _MAX_LISTS:
            raise ValueError(f"a tensor of shape {self.shape} is {lists} lists; ask for arrays")
        return nest(self._flat(), self.shape)

    def array(self, dtype: str | None = None) -> Any:
        """Return a NumPy array; `dtype` is ignored, as the message contains it."""
        del dtype
        import numpy as np

        if self.dtype.kind == "s":
            flat = self._flat()
            strings = np.empty(self.size, dtype=object)
            strings[:] = flat
            return strings.reshape(self.shape)
        element = numpy_dtype(self.dtype)
        block = self._block()
        if block is not None:
            numbers = np.frombuffer(block, element)
        else:
            varints = _varints(b"".join(getattr(self._proto, self.dtype.field)))
            if self.dtype.field == "half_val":
                numbers = varints.astype(np.uint16).view(element)
            else:
                numbers = varints.astype(element)
        self._check(numbers.size)
        if numbers.size < self.size:  # TensorFlow leaves out repetitions of the last value
            last = numbers[-1] if numbers.size else element.type(0)
            numbers = np.concatenate([numbers, np.full(self.size - numbers.size, last, element)])
        return numbers.reshape(self.shape)

    def _block(self) -> bytes | None:
        """Return the numbers as one little-endian block; `None` if they are varints."""
        if self._cached is None:  # protobuf copies the bytes at each access
            content = self._proto.tensor_content
            if not content:
                if self.dtype.layout == "varint":
                    return None
                chunks = getattr(self._proto, self.dtype.field)
                content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._cached = content
        return self._cached

    def _check(self, count: int) -> None:
        if not count <= self.size <= count + _MAX_FILLED:
            raise ValueError(f"a tensor of shape {self.shape} holds {count} values")

    def _flat(self) -> list[Any]:
        if self.dtype.char is None and self.dtype.kind in "xi":
            # Only NumPy has floats of eight bits and smaller integers.
            numbers: list[Any] = self.array().ravel().tolist()
        elif self.dtype.kind == "s":
            content = self._proto.tensor_content
            numbers = _strings(content, self.size) if content else list(self._proto.string_val)
        else:
            numbers = self._numbers()
        self._check(len(numbers))
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
            raise ValueError(f"a {self.dtype.name} tensor of {len(block)} bytes is incomplete")
        parts = list(struct.unpack(f"<{count}{char}", block))
        if self.dtype.kind != "c":
            return parts
        return [complex(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]

    def _parsed(self) -> list[Any]:
        """Return varints, unpacked by protobuf itself."""
        only = PackedTensorProto()
        getattr(only, self.dtype.field).extend(getattr(self._proto, self.dtype.field))
        try:
            parsed = TensorProto.FromString(only.SerializeToString())
        except DecodeError as exc:
            raise ValueError(f"the values of a tensor are unreadable: {exc}") from exc
        return list(getattr(parsed, self.dtype.field))


def _strings(content: bytes, count: int) -> list[bytes]:
    """Return strings packed into `tensor_content`: all lengths as varints, then all bytes."""
    lengths, position = [], 0
    for _ in range(min(count, len(content))):
        length = shift = 0
        while position < len(content):
            byte = content[position]
            position, length, shift = position + 1, length | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        lengths.append(length)
    ends = list(accumulate(lengths, initial=position))
    if ends[-1] != len(content) or len(lengths) != count:
        raise ValueError(f"the content of {len(content)} bytes is not that of {count} strings")
    return [content[start:end] for start, end in pairwise(ends)]


def _varints(raw: bytes) -> Any:
    """Return protobuf's varints as an int64 array (uint64 wraps around), without a Python loop."""
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

    def numbers(self, limit: int) -> list[tuple[float, ...]]:
        """Return the first `limit` numbers of each row."""
        try:
            # JSON has nine digits, which identify every float32: rounded to float32 again, the
            # numbers are exactly those of gRPC.
            return [tuple(array("f", row)) for row in self._rows(limit)]
        except TypeError as exc:
            raise ValueError(f"expected numbers: {exc}") from exc

    def texts(self, limit: int) -> list[tuple[str, ...]]:
        """Return the first `limit` strings of each row."""
        rows = [tuple(row) for row in self._rows(limit)]
        if not any({*map(type, row)} - {str} for row in rows):
            return rows
        kinds = {*map(type, chain.from_iterable(rows))}
        if kinds == {int}:
            return [tuple(map(str, row)) for row in rows]
        if kinds == {bytes}:  # an output whose name ends in _bytes
            return [tuple(map(bytes.decode, row)) for row in rows]
        raise ValueError("expected strings")

    def _rows(self, limit: int) -> list[Any]:
        width = self.shape[1]
        if not all(type(row) is list and len(row) == width for row in self._value):
            raise ValueError(f"the rows are not all of width {width}")
        if limit >= width:
            return list(self._value)
        return [row[:limit] for row in self._value]

    def value(self) -> Any:
        """Return nested lists or a scalar."""
        return self._value

    def array(self, dtype: str | None = None) -> Any:
        """Return a NumPy array of type `dtype`."""
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


def from_tensor_proto(tensor: TensorProto, *, arrays: bool = False) -> Any:
    """Return the value of a tensor.

    Args:
        tensor: Tensor of any dtype except resources and variants.
        arrays: Return a NumPy array (read-only if it shares the message's memory;
            strings as an object array) instead of nested lists or a scalar.

    Returns:
        Strings as `bytes`, the rest as Python's or NumPy's numbers.

    Raises:
        ValueError: The message contradicts itself, or its dtype has no value outside a server.
    """
    view = WireTensor(PackedTensorProto.FromString(tensor.SerializeToString()))
    return view.array() if arrays else view.value()
