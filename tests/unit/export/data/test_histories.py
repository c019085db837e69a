"""Histories: their order, parts, gaps and matrix."""

import numpy as np
import pytest

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import LONGEST_GAP, Histories
from shortlist.export.data.split import Split
from tests.support.histories import histories


def rows(of: Histories) -> list[list[int]]:
    return [of.events.of(row).tolist() for row in range(len(of))]


def test_histories_are_in_the_order_of_time(data: Dataset, split: Split) -> None:
    shuffled = np.random.default_rng(0).permutation(split.training)
    of = Histories.of_users(data, shuffled).take(np.array([7, 3]))
    assert data.timestamps is not None
    assert of.times is not None
    for place, user in enumerate((7, 3)):
        own = split.training[data.user_positions[split.training] == user]
        own = own[np.argsort(data.timestamps[own], kind="stable")]
        np.testing.assert_array_equal(of.events.of(place), data.candidate_positions[own])
        cells = slice(of.events.starts[place], of.events.starts[place + 1])
        np.testing.assert_array_equal(of.times[cells], data.timestamps[own])


def test_parts_of_histories_keep_their_times() -> None:
    of = histories([[5, 6, 7], [], [8], [9, 5]], 10, times=[1, 2, 3, 4, 5, 6])
    taken = of.take(np.array([3, 1, 0, 3]))
    assert rows(taken) == [[9, 5], [], [5, 6, 7], [9, 5]]
    assert taken.times is not None
    assert taken.times.tolist() == [5, 6, 1, 2, 3, 5, 6]
    last = of.last(2)
    assert rows(last) == [[6, 7], [], [8], [9, 5]]
    assert last.times is not None
    assert last.times.tolist() == [2, 3, 4, 5, 6]
    assert rows(of.last(0)) == [[], [], [], []]


def test_gaps_are_buckets_of_the_time_since_the_previous_event() -> None:
    times = [7, 7, 8, 10, 2**40, 5, 5 + 2**30 - 2, 5 + 2**31 - 2]
    of = histories([[0, 1, 2, 3, 4], [], [5, 6, 7]], 8, times=times)
    assert of.gaps.dtype == np.int8
    # Seconds: none, 0, 1, 2, very many; none, 2^30 - 2, 2^30.
    assert of.gaps.tolist() == [0, 1, 2, 2, LONGEST_GAP, 0, 30, LONGEST_GAP]
    assert histories([[0, 1]], 2).gaps.tolist() == [0, 0]


@pytest.mark.parametrize("exponent", range(1, 30))
def test_gaps_just_below_a_power_of_two_are_in_the_lower_bucket(exponent: int) -> None:
    times = [0, 2**exponent - 2, 2**exponent - 2 + 2**exponent - 1]
    assert histories([[0, 1, 2]], 3, times=times).gaps.tolist() == [0, exponent, exponent + 1]


def test_weights_decay_and_a_repeated_candidate_counts_once() -> None:
    of = histories([[2, 0, 2, 1], [], [3]], 4)
    assert of.matrix().toarray().tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert of.matrix(half_life=1).toarray().tolist() == [
        [0.25, 1, 0.5, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]
