"""Bounds on numeric attributes."""

import numpy as np
import pytest

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Attribute
from shortlist.export.servable.filters import CandidateFilter

YEARS = [1980.0, 1990.0, np.nan, 2000.0, 2010.0]
LENGTHS = [100.0, np.nan, 80.0, 90.0, 100.0]


@pytest.fixture(scope="module")
def candidate_filter() -> CandidateFilter:
    attributes = {
        "year": Attribute(numbers=np.array(YEARS)),
        "length": Attribute(numbers=np.array(LENGTHS)),
    }
    return CandidateFilter(attributes, len(YEARS))


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        ([], [], [0, 1, 2, 3, 4]),
        (["year=1990"], [], [1, 3, 4]),
        (["year=1990", "year=2000", "year=1980"], [], [3, 4]),
        ([], ["year=2000", "year=1980"], [0]),
        (["year=1980", "length=95"], [], [0, 4]),
        (["length=95"], ["year=2000"], [0]),
        (["year=-inf"], [], [0, 1, 3, 4]),
        (["year=nan"], [], []),
        (["year=1980", "year=nan"], [], []),
        ([f"year={number}" for number in range(1000)], [], [0, 1, 3, 4]),
    ],
)
def test_all_bounds_hold(
    candidate_filter: CandidateFilter, lowest: list[str], highest: list[str], expected: list[int]
) -> None:
    nothing = tf.constant([], tf.string)
    mask = candidate_filter.mask(
        nothing, nothing, tf.constant(lowest, tf.string), tf.constant(highest, tf.string)
    )
    assert np.flatnonzero(mask.numpy()).tolist() == expected


@pytest.mark.parametrize("term", ["in_stock=True", "in_stock=true", "in_stock=TRUE"])
def test_truth_is_found_in_the_usual_spellings(term: str) -> None:
    values = (("True",), ("False",), ("TRUE",), ())
    by_stock = CandidateFilter({"in_stock": Attribute(values=values)}, len(values))
    nothing = tf.constant([], tf.string)
    mask = by_stock.mask(tf.constant([term]), nothing, nothing, nothing).numpy()
    assert np.flatnonzero(mask).tolist() == ([2] if term.endswith("TRUE") else [0, 2])
