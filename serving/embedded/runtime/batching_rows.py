"""What batching asks of tensors: rows to count, inner shapes to bring together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.serving.embedded.api.errors import invalid

__all__ = ["padded_alike", "rows_of"]


def padded_alike(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Arrays brought to one inner shape, each padded with its own first value.

    Raises:
        StatusError: Their ranks differ or are too high, or one is empty.
    """
    ranks = {array.ndim for array in arrays}
    if len(ranks) > 1 or max(ranks) > 6:
        raise invalid("Only tensors with rank from 1 to 6 can be padded.")
    shape = tuple(map(max, zip(*(array.shape[1:] for array in arrays), strict=True)))
    padded = []
    for array in arrays:
        if array.shape[1:] == shape:
            padded.append(array)
            continue
        if not array.size:
            raise invalid("Got empty tensor in batch of non-empty tensors.")
        full = np.empty((array.shape[0], *shape), array.dtype)
        full.fill(array.flat[0])
        full[tuple(slice(size) for size in array.shape)] = array
        padded.append(full)
    return padded


def rows_of(inputs: Mapping[str, npt.NDArray[Any]]) -> int:
    """Rows that all inputs of a request have.

    Raises:
        StatusError: They have no rows, or not the same number.
    """
    if not inputs:
        raise invalid("Batching Run() must have at least one input tensor")
    rows = None
    for array in inputs.values():
        if array.ndim == 0:
            raise invalid("Batching Run() input tensors must have at least one dimension")
        if rows not in (None, array.shape[0]):
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        rows = array.shape[0]
    assert rows is not None
    return rows
