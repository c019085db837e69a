"""Splits: complete, disjoint, repeatable, and true to their method."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.export.config import SPLIT_METHODS, SplitMethod, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import configured_split, make_split


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 500)),
            min_size=12,
            max_size=40,
        )
    )
    # Each user three times, so that leave_last_out can take two interactions, and at different
    # times, so that global_time can cut anywhere.
    rows = sorted([*rows, *((user, 0, 3 * user + time) for user in range(6) for time in range(3))])
    rows = [
        (user, candidate, 2 * time + (row % 2)) for row, (user, candidate, time) in enumerate(rows)
    ]
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
    parts += [split.validation_given, split.given]
    assert split.method == method
    assert sorted(np.concatenate(parts)) == list(range(dataset.num_interactions))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert len(split.training)
    assert len(split.held_out)
    assert bool(len(split.validation)) == bool(validation_fraction)
    again = make_split(dataset, method=method, validation_fraction=validation_fraction)
    np.testing.assert_array_equal(split.held_out, again.held_out)
    np.testing.assert_array_equal(split.validation, again.validation)
    np.testing.assert_array_equal(
        split.fitted, np.sort(np.concatenate([split.training, *parts[1:2], *parts[3:4]]))
    )
    assert bool(len(split.given)) == (method == "new_users")
    assert bool(len(split.validation_given)) == bool(len(split.given) and validation_fraction)


@settings(deadline=None)
@given(datasets())
def test_leave_last_out_holds_out_the_latest_of_each_user(dataset: Dataset) -> None:
    split = make_split(dataset, method="leave_last_out", validation_fraction=0.1)
    assert dataset.timestamps is not None
    for user in range(6):
        own = dataset.user_positions == user
        held_out = [p for p in split.held_out if own[p]]
        validation = [p for p in split.validation if own[p]]
        assert len(held_out) == 1
        # Few users: several of each choose, but at most half of what is left.
        assert len(validation) == min((own.sum() - 1) // 2, 5)
        training = dataset.timestamps[[p for p in split.training if own[p]]]
        assert training.max() <= dataset.timestamps[validation].min()
        assert dataset.timestamps[validation].max() <= dataset.timestamps[held_out[0]]


@settings(deadline=None)
@given(datasets())
def test_global_time_trains_on_the_past(dataset: Dataset) -> None:
    split = make_split(dataset, method="global_time", validation_fraction=0.1)
    assert dataset.timestamps is not None
    training, validation, held_out = (
        dataset.timestamps[part] for part in (split.training, split.validation, split.held_out)
    )
    assert training.max() < validation.min()
    assert validation.max() < held_out.min()


@settings(deadline=None)
@given(datasets())
def test_new_users_are_unknown_to_training(dataset: Dataset) -> None:
    split = make_split(dataset, method="new_users", validation_fraction=0.2)
    users = {
        name: set(dataset.user_positions[getattr(split, name)].tolist())
        for name in ("training", "validation", "validation_given", "held_out", "given")
    }
    assert users["held_out"] == users["given"]
    assert users["validation"] == users["validation_given"]
    assert not users["held_out"] & users["validation"]
    assert not users["training"] & (users["held_out"] | users["validation"])
    again = make_split(dataset, method="new_users")
    np.testing.assert_array_equal(split.held_out, again.held_out)
    np.testing.assert_array_equal(split.given, again.given)


def test_new_users_have_shares_of_users_and_of_their_interactions(data: Dataset) -> None:
    splits = [
        make_split(data, method="new_users", validation_fraction=0.1, seed=seed)
        for seed in range(8)
    ]
    for name, share in (("held_out", 0.2), ("validation", 0.08), ("training", 0.72)):
        users = [len(np.unique(data.user_positions[getattr(split, name)])) for split in splits]
        assert np.mean(users) / 300 == pytest.approx(share, abs=0.02)
    for name, rest in (("held_out", "given"), ("validation", "validation_given")):
        judged, others = (
            sum(len(getattr(split, part)) for split in splits) for part in (name, rest)
        )
        assert judged / (judged + others) == pytest.approx(0.2, abs=0.005)


def test_a_user_who_did_one_thing_is_no_new_user(small_dataset: Dataset) -> None:
    """Nothing could be given in the request, or nothing judged."""
    few = dataclasses.replace(
        small_dataset,
        user_positions=np.array([0, 0, 0, 1, 2, 2, 3, 3], np.int32),
        candidate_positions=np.array([5, 5, 5, 1, 1, 2, 1, 2], np.int32),
        timestamps=np.array([7, 7, 7, 1, 2, 3, 4, 5]),
    )
    for seed in range(20):
        split = make_split(few, method="new_users", held_out_fraction=0.9, seed=seed)
        assert len(split.held_out) == len(split.given) == 1
        assert set(few.user_positions[split.held_out]) <= {2, 3}
    with pytest.raises(
        ValueError, match="sample has 2 users with two different interactions; a split"
    ):
        make_split(few, method="new_users", validation_fraction=0.1)


def keys(dataset: Dataset, part: Sequence[np.int64] | np.ndarray) -> set[tuple[str, str, int]]:
    assert dataset.timestamps is not None
    return {
        (
            dataset.user_ids[dataset.user_positions[row]],
            dataset.candidate_ids[dataset.candidate_positions[row]],
            int(dataset.timestamps[row]),
        )
        for row in part
    }


@pytest.mark.parametrize("method", ["random", "new_users"])
def test_interactions_keep_their_part_when_others_come_and_go(
    small_dataset: Dataset, method: SplitMethod
) -> None:
    """Yesterday's model must not have been trained on what today's model holds out."""
    assert small_dataset.timestamps is not None
    random = np.random.default_rng(3)
    total, num_users = small_dataset.num_interactions, len(small_dataset.user_ids)
    renumbered = random.permutation(num_users)
    user_ids = ["new user"] * (num_users + 1)
    for old, new in enumerate(renumbered.tolist()):
        user_ids[new] = small_dataset.user_ids[old]
    kept = random.permutation(total)[: total * 9 // 10]
    later = dataclasses.replace(
        small_dataset,
        user_ids=tuple(user_ids),
        user_positions=np.append(
            renumbered[small_dataset.user_positions[kept]], [num_users] * 300
        ).astype(np.int32),
        candidate_positions=np.append(
            small_dataset.candidate_positions[kept], np.arange(300) % 100
        ).astype(np.int32),
        timestamps=np.append(small_dataset.timestamps[kept], np.arange(300)),
    )
    split, again = (
        make_split(data, method=method, validation_fraction=0.1) for data in (small_dataset, later)
    )
    for before, after in (
        (split.training, again.training),
        # Of a held-out user, training knows nothing, so any of the interactions may judge.
        (
            [*split.validation, *split.validation_given],
            [*again.validation, *again.validation_given],
        ),
        ([*split.held_out, *split.given], [*again.held_out, *again.given]),
    ):
        common = keys(small_dataset, before) & keys(small_dataset, kept)
        assert common
        assert common == keys(later, after) & keys(small_dataset, kept)


def test_another_seed_holds_out_others(small_dataset: Dataset) -> None:
    first, second = (make_split(small_dataset, seed=seed).held_out for seed in (1, 2))
    share = len(np.intersect1d(first, second)) / len(first)
    assert share == pytest.approx(0.2, abs=0.08)


def test_random_split_is_the_same_on_every_platform_and_in_every_release(
    small_dataset: Dataset,
) -> None:
    """Published versions name the split by its settings alone."""
    few = dataclasses.replace(
        small_dataset,
        user_positions=np.arange(20, dtype=np.int32),
        candidate_positions=np.arange(20, dtype=np.int32),
        timestamps=np.arange(20),
        user_ids=tuple(f"user {number}" for number in range(20)),
        candidate_ids=tuple(f"Käse {number}" for number in range(20)),
    )
    split = make_split(few, validation_fraction=0.2, seed=7)
    assert split.held_out.tolist() == [5, 8, 16, 17, 18]
    assert split.validation.tolist() == [2, 6, 9, 15]
    few = dataclasses.replace(few, user_positions=np.arange(20, dtype=np.int32) % 7)
    split = make_split(few, method="new_users", validation_fraction=0.2, seed=7)
    assert (split.held_out.tolist(), split.given.tolist()) == ([14], [0, 7])
    assert (split.validation.tolist(), split.validation_given.tolist()) == ([13], [6])


def test_exact_duplicates_are_in_the_same_part(small_dataset: Dataset) -> None:
    twice = dataclasses.replace(
        small_dataset,
        user_positions=np.repeat(small_dataset.user_positions, 2),
        candidate_positions=np.repeat(small_dataset.candidate_positions, 2),
        timestamps=None,
    )
    split = make_split(twice)
    assert np.array_equal(split.held_out[::2] + 1, split.held_out[1::2])


@pytest.mark.parametrize("validation_fraction", [0.0, 0.01])
def test_few_interactions_leave_no_part_empty(
    small_dataset: Dataset, validation_fraction: float
) -> None:
    few = dataclasses.replace(
        small_dataset,
        user_positions=small_dataset.user_positions[:3],
        candidate_positions=small_dataset.candidate_positions[:3],
        timestamps=None,
    )
    for fraction in (0.001, 0.5, 0.999):
        split = make_split(few, held_out_fraction=fraction, validation_fraction=validation_fraction)
        assert len(split.training)
        assert len(split.held_out)
        assert bool(len(split.validation)) == bool(validation_fraction)
    same = dataclasses.replace(
        few, user_positions=np.zeros(3, np.int32), candidate_positions=np.zeros(3, np.int32)
    )
    with pytest.raises(ValueError, match="sample has 1 different interactions; a split into"):
        make_split(same, validation_fraction=validation_fraction)


def at_times(dataset: Dataset, times: list[int]) -> Dataset:
    return dataclasses.replace(
        dataset,
        user_positions=np.arange(len(times), dtype=np.int32) % 5,
        candidate_positions=np.arange(len(times), dtype=np.int32),
        timestamps=np.array(times),
    )


@pytest.mark.parametrize(
    ("times", "held_out"),
    [
        ([1] * 70 + [2] * 30, 30),
        ([1] * 70 + [2] * 15 + [3] * 15, 15),  # 15 is nearer to 20 than 30 is
        ([1] * 60 + [2] * 33 + [3] * 7, 33 + 7),
        ([3] * 30 + [1] * 70, 30),
    ],
)
def test_global_time_cuts_between_two_times(
    small_dataset: Dataset, times: list[int], held_out: int
) -> None:
    split = make_split(at_times(small_dataset, times), method="global_time")
    assert len(split.held_out) == held_out
    assert np.array(times)[split.training].max() < np.array(times)[split.held_out].min()


@pytest.mark.parametrize(
    ("times", "share"),
    [([1714521600] * 100, "100%"), ([0] * 30 + [1714521600] * 61 + [1714521601] * 9, "61%")],
)
def test_global_time_refuses_times_that_give_no_such_share(
    small_dataset: Dataset, times: list[int], share: str
) -> None:
    with pytest.raises(
        ValueError, match=f"{share} of the interactions have the time 2024-05-01T00:00:00Z"
    ):
        make_split(at_times(small_dataset, times), method="global_time")


def test_leave_last_out_needs_an_order(small_dataset: Dataset) -> None:
    with pytest.raises(
        ValueError, match="have the time 2024-05-01T00:00:00Z, so none is a user's last"
    ):
        make_split(at_times(small_dataset, [1714521600] * 50), method="leave_last_out")


def users_with(counts: Sequence[int], *, ordered: int) -> Dataset:
    """Return data of users with so many interactions, the first of them at different times."""
    users = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    places = np.concatenate([np.arange(count) for count in counts])
    return Dataset(
        name="synthetic",
        user_ids=tuple(map(str, range(len(counts)))),
        candidate_ids=tuple(map(str, range(max(counts)))),
        titles=tuple(map(str, range(max(counts)))),
        user_positions=users,
        candidate_positions=places.astype(np.int32),
        timestamps=np.where(users < ordered, places, 7),
    )


@pytest.mark.parametrize(
    ("counts", "ordered", "method", "reason"),
    [
        ([3] * 200, 100, "leave_last_out", "times order the interactions of 100 users"),
        ([3] * 100 + [2] * 200, 300, "leave_last_out", "times order the interactions of 100 users"),
        ([3] * 99, 99, "random", "times order the interactions of 99 users, fewer than 100"),
        ([3] * 202, 100, "random", "times order the .* of 100 users, fewer than half of 202"),
        # One interaction to hold out leaves none to validate by.
        ([2] * 200, 200, "random", "times order the interactions of 0 users, fewer than 100"),
    ],
)
def test_default_method_follows_from_the_order_that_times_give(
    counts: list[int], ordered: int, method: SplitMethod, reason: str
) -> None:
    dataset = users_with(counts, ordered=ordered)
    split = configured_split(dataset, TrainConfig())
    assert split.method == method
    assert re.fullmatch(reason, split.reason)
    expected = make_split(dataset, method=method, validation_fraction=0.1)
    np.testing.assert_array_equal(split.held_out, expected.held_out)
    assert len(split.validation)
    for named in ("random", "new_users"):
        configured = configured_split(dataset, TrainConfig(split=named))
        assert (configured.method, configured.reason) == (named, "")


def test_default_method_without_times_is_random() -> None:
    dataset = dataclasses.replace(users_with([3] * 200, ordered=200), timestamps=None)
    split = configured_split(dataset, TrainConfig())
    assert (split.method, split.reason) == ("random", "there are no times")


def test_held_out_part_does_not_depend_on_the_validation_part(small_dataset: Dataset) -> None:
    split = make_split(small_dataset, held_out_fraction=0.25, seed=4)
    other = make_split(small_dataset, held_out_fraction=0.25, seed=4, validation_fraction=0.1)
    np.testing.assert_array_equal(split.held_out, other.held_out)
    assert len(split.held_out) == pytest.approx(small_dataset.num_interactions * 0.25, rel=0.1)


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
