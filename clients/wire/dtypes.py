"""Element types of tensors: their layout in messages and in NumPy."""

from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["DTYPES", "Dtype", "by_name", "by_number", "by_numpy_name", "numpy_dtype"]

Layout = Literal["fixed", "varint", "bytes", "string"]


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type.

    Attributes:
        name: TensorFlow's name, such as `DT_FLOAT`.
        number: Number in the `DataType` enum.
        field: Field of `TensorProto` for values that are not in `tensor_content`.
        layout: Encoding of that field: little-endian numbers, varints, bytes or strings.
        char: Code in `struct` and `memoryview` of the element, or of one part for complex
            types; `None` if Python has none.
        numpy: Name of the type in NumPy, or in `ml_dtypes` if NumPy has none.
        kind: Kind in Python: b(ool), i(nteger), f(loat), c(omplex), s(tring), x (other).
    """

    name: str
    number: int
    field: str
    layout: Layout
    char: str | None
    numpy: str
    kind: str


def _int(name: str, number: int, char: str | None, numpy: str) -> Dtype:
    return Dtype(name, number, "int_val", "varint", char, numpy, "i")


DTYPES: Final = (
    Dtype("DT_FLOAT", 1, "float_val", "fixed", "f", "float32", "f"),
    Dtype("DT_DOUBLE", 2, "double_val", "fixed", "d", "float64", "f"),
    _int("DT_INT32", 3, "i", "int32"),
    _int("DT_UINT8", 4, "B", "uint8"),
    _int("DT_INT16", 5, "h", "int16"),
    _int("DT_INT8", 6, "b", "int8"),
    Dtype("DT_STRING", 7, "string_val", "string", None, "object", "s"),
    Dtype("DT_COMPLEX64", 8, "scomplex_val", "fixed", "f", "complex64", "c"),
    Dtype("DT_INT64", 9, "int64_val", "varint", "q", "int64", "i"),
    Dtype("DT_BOOL", 10, "bool_val", "varint", "?", "bool", "b"),
    _int("DT_QINT8", 11, "b", "int8"),
    _int("DT_QUINT8", 12, "B", "uint8"),
    _int("DT_QINT32", 13, "i", "int32"),
    Dtype("DT_BFLOAT16", 14, "half_val", "varint", None, "bfloat16", "f"),
    _int("DT_QINT16", 15, "h", "int16"),
    _int("DT_QUINT16", 16, "H", "uint16"),
    _int("DT_UINT16", 17, "H", "uint16"),
    Dtype("DT_COMPLEX128", 18, "dcomplex_val", "fixed", "d", "complex128", "c"),
    Dtype("DT_HALF", 19, "half_val", "varint", "e", "float16", "f"),
    Dtype("DT_UINT32", 22, "uint32_val", "varint", "I", "uint32", "i"),
    Dtype("DT_UINT64", 23, "uint64_val", "varint", "Q", "uint64", "i"),
    Dtype("DT_FLOAT8_E5M2", 24, "float8_val", "bytes", None, "float8_e5m2", "x"),
    Dtype("DT_FLOAT8_E4M3FN", 25, "float8_val", "bytes", None, "float8_e4m3fn", "x"),
    Dtype("DT_FLOAT8_E4M3FNUZ", 26, "float8_val", "bytes", None, "float8_e4m3fnuz", "x"),
    Dtype("DT_FLOAT8_E4M3B11FNUZ", 27, "float8_val", "bytes", None, "float8_e4m3b11fnuz", "x"),
    Dtype("DT_FLOAT8_E5M2FNUZ", 28, "float8_val", "bytes", None, "float8_e5m2fnuz", "x"),
    _int("DT_INT4", 29, None, "int4"),
    _int("DT_UINT4", 30, None, "uint4"),
    _int("DT_INT2", 31, None, "int2"),
    _int("DT_UINT2", 32, None, "uint2"),
)

_BY_NAME: Final = {dtype.name: dtype for dtype in DTYPES}
_BY_NUMBER: Final = {dtype.number: dtype for dtype in DTYPES}
# The quantized types share NumPy's names with the plain ones, which come first.
_BY_NUMPY: Final = {dtype.numpy: dtype for dtype in reversed(DTYPES) if "_Q" not in dtype.name}


def by_name(name: str) -> Dtype | None:
    """Return the type with TensorFlow's `name`; `None` for resources, variants and unknown ones."""
    return _BY_NAME.get(name)


def by_number(number: int) -> Dtype | None:
    """Return the type with a number of the `DataType` enum; `None` as in `by_name`."""
    return _BY_NUMBER.get(number)


def by_numpy_name(name: str) -> Dtype | None:
    """Return the type of numbers with NumPy's `name`; `None` if TensorFlow has none."""
    return _BY_NUMPY.get(name)


def numpy_dtype(dtype: Dtype) -> Any:
    """Return NumPy's type object, from `ml_dtypes` if NumPy has none.

    Raises:
        ValueError: `ml_dtypes` is necessary and not installed.
    """
    import numpy as np

    try:
        return np.dtype(dtype.numpy)
    except TypeError:
        try:
            import ml_dtypes
        except ImportError as exc:
            raise ValueError(f"{dtype.name} needs the package ml_dtypes") from exc
        return np.dtype(getattr(ml_dtypes, dtype.numpy))
