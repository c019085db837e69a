"""The population stability index."""

import numpy as np
import pytest

from shortlist.export.evaluation.reference import buckets
from shortlist.export.monitor import drift
from shortlist.export.monitor.drift import LEAST


def stability_index(reference: np.ndarray, values: np.ndarray) -> float | None:
    return drift.stability_index(buckets(reference), values)


def test_equal_distributions_have_an_index_near_zero() -> None:
    random = np.random.default_rng(0)
    index = stability_index(random.normal(size=2000), random.normal(size=2000))
    assert index is not None
    assert 0 <= index < 0.02


def test_the_index_is_the_sum_of_the_formula() -> None:
    """Half of the values move from the first bucket to the last: 2 x 0.05 x ln 2 ... by hand."""
    reference = np.repeat(np.arange(10.0), 1000)
    values = np.concatenate([reference[500:], np.full(500, 9.0)])
    p, q = np.full(10, 1000 + 0.5), np.array([500.5, *[1000.5] * 8, 1500.5])
    p, q = p / p.sum(), q / q.sum()
    assert stability_index(reference, values) == pytest.approx(
        float(((q - p) * np.log(q / p)).sum())
    )


def test_few_values_have_no_index() -> None:
    many, few = np.arange(1000.0), np.arange(float(LEAST - 1))
    assert stability_index(many, few) is None
    assert stability_index(few, many) is None


def test_equal_values_are_no_drift_and_new_ones_are() -> None:
    same = np.full(500, 3.0)
    assert stability_index(same, same) == 0
    moved = stability_index(same, np.full(500, 4.0))
    assert moved is not None
    assert moved > 1
