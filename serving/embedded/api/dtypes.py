"""TensorFlow's data types as the server sees them: names in error messages and numpy types."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shortlist.clients.wire import messages
from shortlist.clients.wire.dtypes import by_name, numpy_dtype

__all__ = ["DTYPES", "Dtype", "dtype_name", "dtype_of", "numpy_name"]

# Quantized types and those of less than a byte have no values in TensorFlow Serving's API.
_SERVED: Final = (
    *("FLOAT", "DOUBLE", "HALF", "BFLOAT16", "COMPLEX64", "COMPLEX128", "STRING", "BOOL"),
    *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
)


@dataclass(frozen=True, kw_only=True)
class Dtype:
    """One data type that can cross the wire.

    Attributes:
        number: Value in the `DataType` enum.
        name: TensorFlow's name in error messages, such as `float`.
        numpy: Numpy type; `object` (of bytes) for strings.
        field: Repeated field of `TensorProto` that holds the values.
    """

    number: int
    name: str
    numpy: np.dtype[Any]
    field: str


def _dtype(name: str) -> Dtype:
    wire = by_name(f"DT_{name}")
    assert wire is not None
    return Dtype(number=wire.number, name=name.lower(), numpy=numpy_dtype(wire), field=wire.field)


DTYPES: Final = {dtype.number: dtype for dtype in map(_dtype, _SERVED)}
_BY_NUMPY: Final = {dtype.numpy: dtype for dtype in DTYPES.values()}


def dtype_of(array: npt.NDArray[Any]) -> Dtype:
    """Return the data type of an array from the runtime.

    Raises:
        KeyError: No TensorFlow type has this numpy type.
    """
    return _BY_NUMPY[array.dtype]


def dtype_name(number: int) -> str:
    """Return TensorFlow's name of a data type, such as `float`; for error messages."""
    dtype = DTYPES.get(number)
    if dtype is not None:
        return dtype.name
    try:
        name: str = messages.DataType.Name(number)
    except ValueError:
        return f"unknown dtype enum ({number})"
    return name.removeprefix("DT_").lower()


def numpy_name(dtype: np.dtype[Any]) -> str:
    """Return TensorFlow's name of a numpy type, such as `double` for float64."""
    known = _BY_NUMPY.get(dtype)
    return str(dtype) if known is None else known.name
