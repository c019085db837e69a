"""TensorFlow's data types: numbers, names in error messages, numpy equivalents."""

from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from shortlist.clients.wire import messages

__all__ = ["DTYPES", "Dtype", "dtype_name", "dtype_of", "numpy_name"]


@dataclass(frozen=True, kw_only=True)
class Dtype:
    """One data type that can cross the wire.

    Attributes:
        number: Value of the `DataType` enum.
        name: TensorFlow's name, as its error messages spell it.
        numpy: The numpy type; `object` (of bytes) for strings.
        field: Repeated field of `TensorProto` that holds the values.
    """

    number: int
    name: str
    numpy: npt.DTypeLike
    field: str


def _all() -> dict[int, Dtype]:
    rows: list[tuple[str, str, Any, str]] = [
        ("DT_FLOAT", "float", np.float32, "float_val"),
        ("DT_DOUBLE", "double", np.float64, "double_val"),
        ("DT_INT32", "int32", np.int32, "int_val"),
        ("DT_UINT8", "uint8", np.uint8, "int_val"),
        ("DT_INT16", "int16", np.int16, "int_val"),
        ("DT_INT8", "int8", np.int8, "int_val"),
        ("DT_STRING", "string", np.object_, "string_val"),
        ("DT_COMPLEX64", "complex64", np.complex64, "scomplex_val"),
        ("DT_INT64", "int64", np.int64, "int64_val"),
        ("DT_BOOL", "bool", np.bool_, "bool_val"),
        ("DT_BFLOAT16", "bfloat16", ml_dtypes.bfloat16, "half_val"),
        ("DT_UINT16", "uint16", np.uint16, "int_val"),
        ("DT_COMPLEX128", "complex128", np.complex128, "dcomplex_val"),
        ("DT_HALF", "half", np.float16, "half_val"),
        ("DT_UINT32", "uint32", np.uint32, "uint32_val"),
        ("DT_UINT64", "uint64", np.uint64, "uint64_val"),
    ]
    found = {}
    for enum_name, name, numpy_type, field in rows:
        number = messages.DataType.Value(enum_name)
        found[number] = Dtype(number=number, name=name, numpy=np.dtype(numpy_type), field=field)
    return found


DTYPES: Final = _all()
_BY_NUMPY: Final = {np.dtype(dtype.numpy): dtype for dtype in DTYPES.values()}


def dtype_of(array: npt.NDArray[Any]) -> Dtype:
    """The data type of an array that the runtime returned.

    Raises:
        KeyError: No TensorFlow type has this numpy type.
    """
    return _BY_NUMPY[array.dtype]


def dtype_name(number: int) -> str:
    """TensorFlow's own name of a data type, such as `float`; for error messages."""
    dtype = DTYPES.get(number)
    if dtype is not None:
        return dtype.name
    try:
        name: str = messages.DataType.Name(number)
    except ValueError:
        return f"unknown dtype enum ({number})"
    return name.removeprefix("DT_").lower()


def numpy_name(dtype: np.dtype[Any]) -> str:
    """TensorFlow's name for a numpy type, such as `double` for float64."""
    known = _BY_NUMPY.get(dtype)
    return str(dtype) if known is None else known.name
