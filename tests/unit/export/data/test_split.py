"""Splits: complete, disjoint, repeatable, and true to their method."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.export.config import SPLIT_METHODS, SplitMethod
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import make_split


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 20)),
            min_size=12,
            max_size=40,
        )
    )
    # Each user three times, so that leave_last_out can take two interactions.
    rows = sorted([*rows, *((user, 0, 5) for user in range(6) for _ in range(3))])
    return Dataset(
        name="synthetic",
        user_ids=tuple("012345"),
        candidate_ids=tuple("0123456789"),
        titles=tuple("0123456789"),
        user_positions=np.asarray([row[0] for row in rows], np.int32),
        candidate_positions=np.asarray([row[1] for row in rows], np.int32),
        timestamps=np.asarray([row[2] for row in rows], np.int64),
    )


@settings(deadline=None)
@given(datasets(), st.sampled_from(SPLIT_METHODS), st.sampled_from([0.0, 0.1, 0.4]))
def test_parts_are_disjoint_complete_and_repeatable(
    dataset: Dataset, method: SplitMethod, validation_fraction: float
) -> None:
    split = make_split(dataset, method=method, validation_fraction=validation_fraction)
    parts = [split.training, split.validation, split.held_out]
    assert sorted(np.concatenate(parts)) == list(range(dataset.num_interactions))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert len(split.training)
    assert len(split.held_out)
    assert bool(len(split.validation)) == bool(validation_fraction)
    again = make_split(dataset, method=method, validation_fraction=validation_fraction)
    np.testing.assert_array_equal(split.held_out, again.held_out)
    np.testing.assert_array_equal(split.validation, again.validation)
    np.testing.assert_array_equal(
        split.fitted, np.sort(np.concatenate([split.training, split.validation]))
    )


@settings(deadline=None)
@given(datasets())
def test_leave_last_out_holds_out_the_latest_of_each_user(dataset: Dataset) -> None:
    split = make_split(dataset, method="leave_last_out", validation_fraction=0.1)
    assert dataset.timestamps is not None
    for user in range(6):
        own = dataset.user_positions == user
        held_out = [p for p in split.held_out if own[p]]
        validation = [p for p in split.validation if own[p]]
        assert len(held_out) == len(validation) == 1
        training = dataset.timestamps[[p for p in split.training if own[p]]]
        assert training.max() <= dataset.timestamps[validation[0]]
        assert dataset.timestamps[validation[0]] <= dataset.timestamps[held_out[0]]


@settings(deadline=None)
@given(datasets())
def test_global_time_trains_on_the_past(dataset: Dataset) -> None:
    split = make_split(dataset, method="global_time", validation_fraction=0.1)
    assert dataset.timestamps is not None
    training, validation, held_out = (
        dataset.timestamps[part] for part in (split.training, split.validation, split.held_out)
    )
    assert training.max() <= validation.min()
    assert validation.max() <= held_out.min()


def test_held_out_part_does_not_depend_on_the_validation_part(small_dataset: Dataset) -> None:
    split = make_split(small_dataset, held_out_fraction=0.25, seed=4)
    other = make_split(small_dataset, held_out_fraction=0.25, seed=4, validation_fraction=0.1)
    np.testing.assert_array_equal(split.held_out, other.held_out)
    assert len(split.held_out) == round(small_dataset.num_interactions * 0.25)


def test_user_with_one_interaction_keeps_it_for_training() -> None:
    dataset = Dataset(
        name="synthetic",
        user_ids=("a", "b"),
        candidate_ids=("x", "y"),
        titles=("x", "y"),
        user_positions=np.array([0, 1, 1], np.int32),
        candidate_positions=np.array([0, 0, 1], np.int32),
        timestamps=np.array([9, 2, 1], np.int64),
    )
    split = make_split(dataset, method="leave_last_out")
    assert split.held_out.tolist() == [1]
    assert split.training.tolist() == [0, 2]


@pytest.mark.parametrize("method", ["leave_last_out", "global_time"])
def test_split_by_time_needs_times(small_dataset: Dataset, method: SplitMethod) -> None:
    timeless = dataclasses.replace(small_dataset, timestamps=None)
    with pytest.raises(ValueError, match="sample has no timestamps; split at random or name"):
        make_split(timeless, method=method)


def test_too_few_interactions_are_refused(small_dataset: Dataset) -> None:
    tiny = dataclasses.replace(
        small_dataset,
        user_positions=small_dataset.user_positions[:2],
        candidate_positions=small_dataset.candidate_positions[:2],
    )
    with pytest.raises(ValueError, match="sample has 2 interactions; a split needs at least 3"):
        make_split(tiny, held_out_fraction=0.2, seed=1)
