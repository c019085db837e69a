"""Vectors, ids and inputs of towers from Parquet, CSV and NPZ files."""

import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.export.data.config import DataError
from shortlist.export.data.reading.faults import Faults
from shortlist.export.data.reading.rows import Rows
from shortlist.export.data.sources import tabular

__all__ = ["OwnTable", "names_in", "read_own_table"]


@dataclass(frozen=True, kw_only=True)
class OwnTable:
    """A file with one row for each candidate, user or query."""

    table: Rows

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(self.table.name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.table.columns.column_names)

    def __len__(self) -> int:
        return int(self.table.columns.num_rows)

    def require(self, name: str, remedy: str) -> None:
        """Raise `DataError` unless there is a column of this name."""
        if name not in self.names:
            raise DataError(
                f"{self.path} has no column {name!r}, only {', '.join(self.names)}; {remedy}"
            )

    def texts(self, name: str) -> list[str]:
        """Return a column that was read as text, or whole numbers as text."""
        return list(map(str, self._filled(name).to_pylist()))

    def names_of_rows(self, name: str) -> list[str]:
        """Return a column of names for people, `""` for rows without one."""
        values = self.table.columns.column(name).to_pylist()
        return ["" if value is None else str(value) for value in values]

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """Return a column of numbers or booleans."""
        column = self._filled(name)
        kind = column.type
        if not (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        ):
            raise DataError(
                f"{self.path}, column {name!r} is of type {_plain(kind)}; it must hold numbers"
            )
        values: npt.NDArray[Any] = column.to_numpy()
        return values

    def lists(self, name: str) -> npt.NDArray[Any]:
        """Return a column of equally long lists as a matrix; text is split at `|` or spaces.

        Raises:
            DataError: A row has no list, or one of another length than the first.
        """
        column = self._filled(name)
        if _is_text(column.type):
            column = _split(column)
        if not _is_list(column.type):
            raise DataError(
                f"{self.path}, column {name!r} is of type {_plain(column.type)}; it must hold one "
                "list of numbers per row (in a CSV file: numbers separated by spaces)"
            )
        lengths = pc.list_value_length(column).to_numpy()
        wrong = np.flatnonzero(lengths != lengths[0])
        if len(wrong):
            raise self.table.fault(
                int(wrong[0]),
                name,
                f"has {lengths[wrong[0]]} values, the first row {lengths[0]}; "
                "all rows must have the same number",
            )
        values = pc.list_flatten(column)
        if values.null_count:
            row = pc.index(pc.is_null(values), True).as_py() // max(int(lengths[0]), 1)
            raise self.table.fault(row, name, "has a missing value; fill it in")
        flat = values.to_pylist() if _is_text(values.type) else values.to_numpy()
        if _is_text(values.type):
            flat = np.array(flat, dtype=object)
        matrix: npt.NDArray[Any] = np.asarray(flat).reshape(len(lengths), -1)
        return matrix

    def vectors(self, name: str) -> npt.NDArray[Any]:
        """Return a column of vectors `[n, d]`, in the floating-point type of the file."""
        matrix = self.lists(name)
        if matrix.dtype == object:
            matrix = np.stack([self._floats(name, row, texts) for row, texts in enumerate(matrix)])
        if not matrix.shape[1]:
            raise DataError(f"{self.path}, column {name!r} holds empty lists; give vectors")
        return matrix

    def is_list(self, name: str) -> bool:
        """Return whether a column holds lists."""
        return _is_list(self.table.columns.column(name).type)

    def _floats(self, name: str, row: int, texts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        try:
            return texts.astype(np.float32)
        except ValueError as exc:
            raise self.table.fault(
                row, name, f"does not hold numbers ({exc}); correct it or remove the row"
            ) from exc

    def _filled(self, name: str) -> pa.ChunkedArray:
        column = self.table.columns.column(name)
        if column.null_count:
            row = pc.index(pc.is_null(column), True).as_py()
            raise self.table.fault(row, name, "is empty; fill it in or remove the row")
        return column


def names_in(path: Path) -> tuple[str, ...]:
    """Return the names of the columns or arrays of a file.

    Raises:
        DataError: The file is missing or faulty.
    """
    path = path.expanduser()
    return tuple(_arrays(path)) if path.suffix == ".npz" else tabular.columns_of(path)


def read_own_table(path: Path, *, texts: Collection[str] = ()) -> OwnTable:
    """Read a Parquet, CSV or NPZ file.

    Args:
        path: File; the arrays of an NPZ file are its columns.
        texts: Columns that must exist and hold texts or whole numbers, such as ids.

    Raises:
        DataError: The file or a column is missing, empty or faulty.
    """
    path = path.expanduser()
    if path.suffix == ".npz":
        return OwnTable(table=_read_npz(path, texts))
    return OwnTable(table=tabular.read_columns(path, texts=texts))


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"no such file: {path}; check the path") from None
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise DataError(
            f"{path} cannot be read ({exc}); write arrays of numbers and strings with "
            "numpy.savez(path, candidate_id=ids, embedding=matrix)"
        ) from exc


def _read_npz(path: Path, texts: Collection[str]) -> Rows:
    arrays = _arrays(path)
    sizes = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(sizes.values())) != 1:
        shown = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(
            f"{path}: arrays must have one row for each id, got {shown or 'no array'}; "
            "save them with the same first dimension"
        )
    columns = pa.table({name: _column(path, name, array) for name, array in arrays.items()})
    if not columns.num_rows:
        raise DataError(f"{path} has no rows; it needs at least one")
    table = Rows(
        name=str(path),
        short_name=path.name,
        columns=columns,
        faults=Faults(str(path), columns.num_rows, lambda rows: [f"row {row + 1}" for row in rows]),
    )
    for name in texts:
        if name not in arrays:
            raise DataError(
                f"{path} has no array {name!r}, only {', '.join(arrays)}; rename it or name the "
                "right one"
            )
        if not (_is_text(columns.column(name).type) or pa.types.is_integer(columns[name].type)):
            raise table.fault(0, name, "is neither a text nor a whole number; convert the ids")
    return table


def _column(path: Path, name: str, array: npt.NDArray[Any]) -> pa.Array:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "biufU" or array.ndim > 2:
        raise DataError(
            f"{path}: array {name!r} is {array.dtype} {list(array.shape)}; save numbers or "
            "strings, one value or one list per row"
        )
    flat = pa.array(array.ravel().tolist() if array.dtype.kind == "U" else array.ravel())
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _split(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Split texts such as `[0.1, 0.2]`, `0.1 0.2` and `a|b` into lists."""
    rows: Sequence[str] = column.cast(pa.string()).to_pylist()
    if any("|" in row for row in rows):
        return pa.chunked_array([pa.array([row.split("|") for row in rows])])
    plain = (row.strip("[]() ").replace(",", " ").split() for row in rows)
    return pa.chunked_array([pa.array(list(plain), pa.list_(pa.string()))])


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    plain = _plain(kind)
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))
