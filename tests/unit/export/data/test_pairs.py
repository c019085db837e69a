"""Compressed rows compared with a plain loop."""

import numpy as np
import pytest

from shortlist.export.data.pairs import Pairs


@pytest.mark.parametrize("distinct", [False, True])
def test_rows_equal_a_plain_loop(distinct: bool) -> None:
    random = np.random.default_rng(1)
    rows, columns = random.integers(0, 8, 60), random.integers(0, 5, 60)
    pairs = Pairs.by_row(rows, columns, num_rows=10, distinct=distinct)
    for row in range(10):
        own = [column for at, column in zip(rows, columns, strict=True) if at == row]
        assert pairs.of(row).tolist() == (sorted(set(own)) if distinct else own)
    assert pairs.counts.sum() == len(pairs.columns)
    assert pairs.of(2, 5).tolist() == [*pairs.of(2), *pairs.of(3), *pairs.of(4)]


def test_cells_go_through_rows_in_the_given_order() -> None:
    pairs = Pairs.by_row(np.array([2, 0, 2]), np.array([7, 5, 6]), num_rows=4)
    places, entries = pairs.cells(np.array([2, 1, 0, 2]))
    assert places.tolist() == [0, 0, 2, 3, 3]
    assert pairs.columns[entries].tolist() == [7, 6, 5, 7, 6]


def test_rows_may_be_empty() -> None:
    nothing = np.empty(0, np.int32)
    for distinct in (False, True):
        pairs = Pairs.by_row(nothing, nothing, num_rows=3, distinct=distinct)
        assert pairs.num_rows == 3
        assert pairs.of(1).tolist() == []
