"""Tables that NumPy and TensorFlow share; TensorFlow copies all others, twice for a moment."""

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf

__all__ = ["shareable_table", "shared_tensor"]

Table = npt.NDArray[np.float32]

_ALIGNMENT = 64  # bytes, what TensorFlow needs to use memory of others


def shareable_table(rows: int, columns: int) -> Table:
    """Return a table `[rows, columns]` of arbitrary values that `shared_tensor` does not copy."""
    size = rows * columns * np.dtype(np.float32).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(rows, columns)


def shared_tensor(table: Table) -> tf.Tensor:
    """Return a table as a tensor: its own memory if it is shareable, otherwise a copy.

    The values must not change as long as the tensor is used.
    """
    shareable = table.size and table.flags.c_contiguous and table.flags.writeable
    if not shareable or table.ctypes.data % _ALIGNMENT:
        return tf.constant(table)
    return tf.experimental.dlpack.from_dlpack(table.__dlpack__())
