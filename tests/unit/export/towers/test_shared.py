"""Tables that NumPy and TensorFlow share."""

import numpy as np

from shortlist.export.towers.shared import shareable_table, shared_tensor


def test_a_shareable_table_is_not_copied() -> None:
    """A copy of a million candidates takes gigabytes."""
    table = shareable_table(100, 3)
    table[:] = 1.0
    tensor = shared_tensor(table)
    table[7, 2] = 5.0
    assert tensor[7, 2].numpy() == 5.0


def test_any_other_table_is_copied() -> None:
    table = shareable_table(100, 3)
    table[:] = np.arange(300, dtype=np.float32).reshape(100, 3)
    for other in (table[1:], table[:, :2], table[:0]):
        np.testing.assert_array_equal(shared_tensor(other), other)


def test_a_tensor_outlives_its_table() -> None:
    tensor = shared_tensor(np.multiply(np.ones((50, 4)), 2.0, out=shareable_table(50, 4)))
    assert tensor.numpy().sum() == 400.0
