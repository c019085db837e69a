"""`TensorProto`s as TensorFlow reads and writes them."""

from typing import Any

import numpy as np
import pytest

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.dtypes import DTYPES, dtype_name
from shortlist.serving.embedded.api.tensors import (
    MissingStringsError,
    TensorParseError,
    encode_tensor,
    encode_varint,
    parse_tensor,
)


def sample(number: int) -> Any:
    dtype = DTYPES[number]
    if dtype.name == "string":
        array = np.empty(6, object)
        array[:] = [b"a", b"", b"\xff\xfe\x00", "七".encode(), b"x" * 300, b"z"]
    elif dtype.name == "bool":
        array = np.array([True, False, True, True, False, False])
    else:
        array = np.array([0, 1, 2, 3, 100, 5]).astype(dtype.numpy)
        if not dtype.name.startswith("u"):
            array = array * np.array(-1).astype(dtype.numpy)
    return array.reshape(2, 3).astype(dtype.numpy)


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize("number", DTYPES)
def test_every_type_survives_both_forms(number: int, as_content: bool) -> None:
    array = sample(number)
    proto = messages.TensorProto.FromString(encode_tensor(array, as_content=as_content))
    assert bool(proto.tensor_content) == as_content
    assert proto.dtype == number
    back = parse_tensor(proto)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("number", DTYPES)
def test_scalars_and_empty_tensors_keep_their_shape(number: int) -> None:
    for array in (sample(number)[0, 0:1].reshape(()), sample(number)[:0]):
        for as_content in (False, True):
            data = encode_tensor(array, as_content=as_content)
            back = parse_tensor(messages.TensorProto.FromString(data))
            assert back.shape == array.shape
            np.testing.assert_array_equal(back, array)


def floats(values: list[float], *shape: int) -> messages.TensorProto:
    proto = messages.TensorProto(dtype=messages.DataType.DT_FLOAT, float_val=values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (floats([3.0], 4), [3.0] * 4),
        (floats([3.0, 4.0], 4), [3.0, 4.0, 4.0, 4.0]),
        (floats([], 2), [0.0, 0.0]),
        (floats([3.0, 4.0], 1), [3.0]),
        (floats([3.0, 4.0]), 3.0),
    ],
)
def test_missing_values_repeat_the_last_and_extra_values_are_ignored(
    proto: messages.TensorProto, expected: Any
) -> None:
    assert parse_tensor(proto).tolist() == expected


def test_narrow_integers_keep_their_low_bits() -> None:
    proto = messages.TensorProto(dtype=messages.DataType.DT_UINT8, int_val=[-1, 256])
    proto.tensor_shape.dim.add(size=2)
    assert parse_tensor(proto).tolist() == [255, 0]


def with_content(proto: messages.TensorProto, content: bytes) -> messages.TensorProto:
    proto.tensor_content = content
    return proto


def string_content(content: bytes, size: int) -> messages.TensorProto:
    proto = messages.TensorProto(dtype=messages.DataType.DT_STRING, tensor_content=content)
    proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        messages.TensorProto(),
        messages.TensorProto(dtype=messages.DataType.DT_RESOURCE),
        floats([1.0], -1),
        floats([1.0], 2**40),
        floats([1.0], *[1] * 255),
        floats([1.0], 2**62, 300, 0),
        floats([1.0], 0, 2**62, 4),
        with_content(floats([], 2), b"123"),
        string_content(b"\x05abc", 1),
        string_content(b"\x01\x01a", 1),
        string_content(b"\xff\xff", 1),
        string_content(b"\xff" * 20, 1),
    ],
)
def test_contradictions_are_refused(proto: messages.TensorProto) -> None:
    with pytest.raises(TensorParseError):
        parse_tensor(proto)


def test_unknown_types_have_names_too() -> None:
    assert dtype_name(messages.DataType.DT_FLOAT) == "float"
    assert dtype_name(messages.DataType.DT_QINT8) == "qint8"
    assert dtype_name(12345) == "unknown dtype enum (12345)"


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63 - 1])
def test_varints_are_protobufs(value: int) -> None:
    written = messages.TensorShapeProto.Dim.FromString(b"\x08" + encode_varint(value))
    assert written.size == value


def strings(*values: bytes, shape: tuple[int, ...]) -> messages.TensorProto:
    proto = messages.TensorProto(dtype=messages.DataType.DT_STRING, string_val=values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    "proto", [strings(shape=(2,)), strings(b"a", shape=(2,)), strings(b"a", shape=(250_000,))]
)
def test_strings_are_never_filled_in(proto: messages.TensorProto) -> None:
    with pytest.raises(MissingStringsError, match="strings for shape"):
        parse_tensor(proto)


def test_one_missing_string_is_empty() -> None:
    assert parse_tensor(strings(shape=(1,))).tolist() == [b""]
    assert parse_tensor(strings(shape=())).tolist() == b""


@pytest.mark.parametrize(
    ("proto", "values", "size"),
    [
        (strings(b"a", b"b", shape=(2,)), 2, 128),
        (string_content(b"\x01\x01ab", 2), 2, 128),
        (floats([1.0, 2.0], 2), 0, 0),
        (with_content(floats([], 1), b"1234"), 0, 0),
        (floats([1.0], 1000), 1000, 4000),
        (floats([], 10**9, 0), 10**9, 0),
    ],
)
def test_values_are_counted_if_they_need_more_memory_than_in_the_message(
    proto: messages.TensorProto, values: int, size: int
) -> None:
    admitted = []
    parse_tensor(proto, lambda *counted: admitted.append(counted))
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    assert admitted == [(shape, values, size)]
