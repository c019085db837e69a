import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.clients._codecs.tensors import JsonTensor, WireTensor, _varints
from shortlist.clients.tensors import from_tensor_proto, to_tensor_proto
from shortlist.clients.wire.messages import DataType, PackedTensorProto, TensorProto

VALUES: dict[str, list[Any]] = {
    "DT_FLOAT": [0.0, -1.5, 3.4028234663852886e38, float("inf"), 2.0**-149],
    "DT_DOUBLE": [0.1, -1e300, 5e-324],
    "DT_INT32": [0, -1, 2**31 - 1, -(2**31), 300],
    "DT_UINT8": [0, 255, 7],
    "DT_INT16": [-(2**15), 2**15 - 1],
    "DT_INT8": [-128, 127],
    "DT_STRING": [b"", b"\xff\x00", "七人".encode()],
    "DT_COMPLEX64": [1 + 2j, -0.5j],
    "DT_INT64": [-(2**63), 2**63 - 1, 0],
    "DT_BOOL": [True, False, True],
    "DT_QINT8": [-128, 5],
    "DT_QUINT8": [255, 5],
    "DT_QINT32": [-7, 7],
    "DT_BFLOAT16": [1.0, -2.5, float("inf")],
    "DT_QINT16": [-7, 7],
    "DT_QUINT16": [65535, 7],
    "DT_UINT16": [65535, 0],
    "DT_COMPLEX128": [1e300 + 2j, 0j],
    "DT_HALF": [1.0, -0.25, 65504.0],
    "DT_UINT32": [2**32 - 1, 0],
    "DT_UINT64": [2**64 - 1, 0],
    "DT_FLOAT8_E5M2": [1.0, -2.0],
    "DT_FLOAT8_E4M3FN": [1.0, -2.0],
    "DT_INT4": [-8, 7],
    "DT_UINT4": [15, 0],
}
FIELDS = {
    "DT_FLOAT": "float_val",
    "DT_DOUBLE": "double_val",
    "DT_STRING": "string_val",
    "DT_INT64": "int64_val",
    "DT_BOOL": "bool_val",
    "DT_UINT32": "uint32_val",
    "DT_UINT64": "uint64_val",
    **dict.fromkeys(
        ("DT_INT32", "DT_INT16", "DT_INT8", "DT_UINT8", "DT_UINT16", "DT_QINT8", "DT_QUINT8"),
        "int_val",
    ),
    **dict.fromkeys(("DT_QINT16", "DT_QUINT16", "DT_QINT32"), "int_val"),
}


@pytest.mark.parametrize("dtype", sorted(VALUES))
@pytest.mark.parametrize("shape", [(), (1,), None])
def test_values_of_every_dtype_come_back(dtype: str, shape: tuple[int, ...] | None) -> None:
    values: Any = VALUES[dtype]
    if shape is not None:
        values = values[1] if shape == () else values[1:2]
    tensor = to_tensor_proto(values, dtype)
    assert from_tensor_proto(tensor) == values
    array = from_tensor_proto(tensor, arrays=True)
    assert array.shape == (np.shape(values) if shape is None else shape)
    assert array.tolist() == values
    again = to_tensor_proto(array, dtype)
    assert again == tensor


@pytest.mark.parametrize("dtype", sorted(FIELDS))
@pytest.mark.parametrize("arrays", [False, True])
def test_values_in_the_typed_field_are_read(dtype: str, arrays: bool) -> None:
    tensor = TensorProto(dtype=dtype)
    tensor.tensor_shape.dim.add(size=len(VALUES[dtype]))
    getattr(tensor, FIELDS[dtype]).extend(VALUES[dtype])
    value = from_tensor_proto(tensor, arrays=arrays)
    assert (value.tolist() if arrays else value) == VALUES[dtype]


def test_half_floats_in_the_typed_field_are_bits() -> None:
    for dtype, bits in (("DT_HALF", [0x3C00, 0xB400]), ("DT_BFLOAT16", [0x3F80, 0xBE80])):
        tensor = TensorProto(dtype=dtype, half_val=bits)
        tensor.tensor_shape.dim.add(size=2)
        assert from_tensor_proto(tensor) == [1.0, -0.25]
        assert from_tensor_proto(tensor, arrays=True).tolist() == [1.0, -0.25]


@pytest.mark.parametrize("arrays", [False, True])
def test_the_last_value_stands_for_the_rest(arrays: bool) -> None:
    for values, expected in (([1.5, 2.5], [1.5, 2.5, 2.5, 2.5]), ([], [0.0] * 4)):
        tensor = TensorProto(dtype="DT_FLOAT", float_val=values)
        tensor.tensor_shape.dim.add(size=2)
        tensor.tensor_shape.dim.add(size=2)
        value = from_tensor_proto(tensor, arrays=arrays)
        flat = np.ravel(value).tolist()
        assert flat == expected


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), (2, 3, 0)])
@pytest.mark.parametrize("arrays", [False, True])
def test_empty_tensors_keep_their_shape(shape: tuple[int, ...], arrays: bool) -> None:
    array = np.zeros(shape, np.float32)
    value = from_tensor_proto(to_tensor_proto(array), arrays=arrays)
    assert np.shape(value) == (shape if arrays or 0 not in shape[:1] else (0,))
    assert from_tensor_proto(to_tensor_proto([])) == []


def test_python_numbers_get_tensorflows_default_types() -> None:
    names = DataType.DESCRIPTOR.values_by_number
    for value, expected in (
        (1, "DT_INT32"),
        (2**31, "DT_INT64"),
        (1.0, "DT_FLOAT"),
        ([1, 2.5], "DT_FLOAT"),
        (1j, "DT_COMPLEX128"),
        (True, "DT_BOOL"),
        ("a", "DT_STRING"),
        ([b"a", "b"], "DT_STRING"),
        ([], "DT_FLOAT"),
    ):
        assert names[to_tensor_proto(value).dtype].name == expected


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        ([[1], [1, 2]], None, "ragged"),
        ([1, [2]], None, "ragged"),
        ([1, "a"], None, "cannot make one tensor of: int, str"),
        ([True, 1], "DT_INT32", "True does not fit DT_INT32"),
        ([1.5], "DT_INT32", "1.5 does not fit DT_INT32"),
        ([300], "DT_UINT8", "does not fit DT_UINT8"),
        ([20], "DT_INT4", "does not fit DT_INT4: -8 to 7"),
        ([-1, 1], "DT_UINT64", "does not fit DT_UINT64"),
        ([70000.0, 1.0], "DT_HALF", "does not fit DT_HALF"),
        (["a"], "DT_FLOAT", "'a' does not fit DT_FLOAT"),
        ([5], "DT_STRING", "does not fit DT_STRING"),
        (None, None, "cannot make one tensor of: NoneType"),
        ([1], "DT_RESOURCE", "cannot be sent"),
        (np.array([1.5]), "DT_INT32", r"convert it with \.astype\('int32'\)"),
        (np.array([2**40]), "DT_INT32", "int64 array does not fit DT_INT32"),
        (np.array(["a"]), "DT_FLOAT", "does not fit DT_FLOAT"),
        (np.array([1.0]), "DT_STRING", "does not fit DT_STRING"),
        (np.array([object()]), None, "does not fit DT_STRING"),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), None, "datetime64.* cannot be sent"),
    ],
)
def test_values_that_do_not_fit_are_refused(value: Any, dtype: str | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        to_tensor_proto(value, dtype)


def test_arrays_of_a_wider_type_are_narrowed_to_the_signatures() -> None:
    narrow = to_tensor_proto(np.array([0.1, 2.5]), "DT_FLOAT")
    assert from_tensor_proto(narrow, arrays=True).dtype == np.float32
    assert from_tensor_proto(to_tensor_proto(np.array([1, 2]), "DT_INT32")) == [1, 2]


def test_big_endian_and_strided_arrays_are_sent_right() -> None:
    swapped = np.arange(6, dtype=">f4").reshape(2, 3)
    assert from_tensor_proto(to_tensor_proto(swapped)) == [[0, 1, 2], [3, 4, 5]]
    assert from_tensor_proto(to_tensor_proto(swapped.T)) == [[0, 3], [1, 4], [2, 5]]
    assert from_tensor_proto(to_tensor_proto(np.float64(2.5))) == 2.5


@pytest.mark.parametrize("arrays", [False, True])
def test_messages_that_contradict_themselves_are_refused(arrays: bool) -> None:
    incomplete = TensorProto(dtype="DT_FLOAT", tensor_content=b"12345")
    incomplete.tensor_shape.dim.add(size=2)
    many = TensorProto(dtype="DT_FLOAT", float_val=[1.0, 2.0, 3.0])
    many.tensor_shape.dim.add(size=2)
    negative = TensorProto(dtype="DT_FLOAT")
    negative.tensor_shape.dim.add(size=-1)
    for tensor in (incomplete, many, negative, TensorProto(dtype="DT_RESOURCE"), TensorProto()):
        with pytest.raises(ValueError, match=r"incomplete|values|negative|no value|buffer"):
            from_tensor_proto(tensor, arrays=arrays)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
@settings(max_examples=200, deadline=None)
def test_varints_are_read_without_a_loop(values: list[int]) -> None:
    tensor = TensorProto(dtype="DT_INT64", int64_val=values)
    raw = b"".join(PackedTensorProto.FromString(tensor.SerializeToString()).int64_val)
    assert _varints(raw).tolist() == values


def test_the_beginning_of_each_row_is_read() -> None:
    numbers = np.arange(12, dtype=np.float32).reshape(4, 3)
    heads = [tuple(row[:2]) for row in numbers.tolist()]
    typed = TensorProto(dtype="DT_FLOAT", float_val=numbers.ravel().tolist())
    typed.tensor_shape.CopyFrom(to_tensor_proto(numbers).tensor_shape)
    for tensor in (to_tensor_proto(numbers), typed, to_tensor_proto(numbers.astype(np.float64))):
        view = WireTensor(PackedTensorProto.FromString(tensor.SerializeToString()))
        assert view.numbers(2) == heads
        with pytest.raises(ValueError, match="expected strings"):
            view.texts(2)
    assert JsonTensor(numbers.tolist()).numbers(2) == heads
    empty = to_tensor_proto(np.zeros((2, 0), np.float32))
    view = WireTensor(PackedTensorProto.FromString(empty.SerializeToString()))
    assert view.numbers(5) == [(), ()]


def test_rest_arrays_take_the_signatures_types() -> None:
    assert JsonTensor([[1, 2]]).array("DT_FLOAT").dtype == np.float32
    strings = JsonTensor([["a", "b"]]).array("DT_STRING")
    assert (strings.dtype, strings.shape) == (object, (1, 2))
    assert math.isnan(JsonTensor([float("nan")]).array("DT_DOUBLE")[0])


def test_large_arrays_travel_as_one_block() -> None:
    array = np.arange(1_000_000, dtype=np.float32)
    tensor = to_tensor_proto(array)
    assert len(tensor.tensor_content) == 4_000_000
    assert not tensor.float_val
    assert struct.unpack("<f", tensor.tensor_content[-4:]) == (999_999.0,)
    received = from_tensor_proto(tensor, arrays=True)
    assert np.array_equal(received, array)
    with pytest.raises(ValueError, match="read-only"):
        received[0] = 1.0


@pytest.mark.parametrize("arrays", [True, False])
def test_strings_in_the_content_are_read(arrays: bool) -> None:
    """As a server with --enable_serialization_as_tensor_content answers, and C++ programs ask."""
    words = ["u1", "", "x" * 300, "七"]
    encoded = [word.encode() for word in words]
    lengths = b"\x02\x00" + b"\xac\x02" + b"\x03"
    tensor = TensorProto(dtype=DataType.DT_STRING, tensor_content=lengths + b"".join(encoded))
    tensor.tensor_shape.dim.add(size=2)
    tensor.tensor_shape.dim.add(size=2)
    value = from_tensor_proto(tensor, arrays=arrays)
    assert (value.tolist() if arrays else value) == [encoded[:2], encoded[2:]]
    view = WireTensor(PackedTensorProto.FromString(tensor.SerializeToString()))
    assert view.texts(1) == [("u1",), ("x" * 300,)]
    for damaged in (lengths, tensor.tensor_content[:-1], tensor.tensor_content + b"!", b"\xff"):
        tensor.tensor_content = damaged
        with pytest.raises(ValueError, match="strings"):
            from_tensor_proto(tensor, arrays=arrays)
