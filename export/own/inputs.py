"""Rows of a tower's inputs, read from a file."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.config import DataError
from shortlist.export.own.tables import OwnTable, names_in, read_own_table
from shortlist.export.servable.contents import Inputs

__all__ = ["describe_inputs", "read_inputs", "take"]


def read_inputs(
    path: Path, specs: Sequence[tf.TensorSpec], *, texts: Collection[str] = (), tower: str
) -> tuple[Inputs, OwnTable]:
    """Read the rows of a tower's inputs; columns have the names of the inputs.

    Args:
        path: Parquet, CSV or NPZ file.
        specs: Inputs of the tower.
        texts: Further columns that must exist, with ids.
        tower: Name of the tower in messages.

    Returns:
        Arrays by input name in the shape and type of the inputs, and the file.

    Raises:
        DataError: The file or a column is missing, or values do not fit.
    """
    names = names_in(path)
    for spec in specs:
        if spec.name not in names:
            raise DataError(
                f"{path} has no column {spec.name!r}, only {', '.join(names)}; {tower} takes "
                f"{describe_inputs(specs)}: name the columns like its inputs"
            )
    strings = [spec.name for spec in specs if spec.dtype == tf.string and _is_scalar(spec)]
    table = read_own_table(path, texts=[*strings, *texts])
    return {spec.name: _values(table, spec) for spec in specs}, table


def describe_inputs(specs: Sequence[tf.TensorSpec]) -> str:
    """Return names and types of inputs: `age (float32), user_id (string)`."""
    return ", ".join(f"{spec.name} ({spec.dtype.name})" for spec in specs)


def take(rows: Inputs, chosen: npt.NDArray[np.integer]) -> Inputs:
    """Return some rows."""
    return {name: values[chosen] for name, values in rows.items()}


def _is_scalar(spec: tf.TensorSpec) -> bool:
    return spec.shape.rank == 1 or (spec.shape.rank == 2 and spec.shape[1] == 1)


def _values(table: OwnTable, spec: tf.TensorSpec) -> npt.NDArray[Any]:
    name, values = spec.name, None
    if not _is_scalar(spec) or table.is_list(name):
        values = table.lists(name)
        if spec.shape.rank == 1:
            raise DataError(
                f"{table.path}, column {name!r} holds lists; the tower takes one value per row"
            )
        if spec.shape.rank != 2 or spec.shape[1] not in (None, values.shape[1]):
            raise DataError(
                f"{table.path}, column {name!r} holds lists of {values.shape[1]} values; the tower "
                f"takes {list(spec.shape)}"
            )
    elif spec.dtype == tf.string:
        values = np.array(table.texts(name), dtype=object)
    else:
        values = table.numbers(name)
    if spec.dtype == tf.string:
        values = np.array([str(value) for value in values.ravel()], dtype=object).reshape(
            values.shape
        )
    else:
        values = _converted(table, spec, values)
    return values[:, None] if spec.shape.rank == 2 and values.ndim == 1 else values


def _converted(table: OwnTable, spec: tf.TensorSpec, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numbers in the type of an input, if that changes none of them but by rounding."""
    kind = spec.dtype.as_numpy_dtype
    try:
        converted: npt.NDArray[Any] = values.astype(kind)
    except ValueError as exc:
        raise DataError(
            f"{table.path}, column {spec.name!r} must hold {spec.dtype.name} values ({exc})"
        ) from exc
    if spec.dtype.is_integer and values.dtype.kind == "f" and not np.array_equal(converted, values):
        raise DataError(
            f"{table.path}, column {spec.name!r} must hold whole numbers, the tower takes "
            f"{spec.dtype.name}"
        )
    return converted
