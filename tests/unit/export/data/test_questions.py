"""Questions: who asks, what is known by then, and what judges the answer."""

import dataclasses

import numpy as np
import pytest

from shortlist.export.config import SPLIT_METHODS, SplitMethod
from shortlist.export.data import questions as module
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import Questions, held_out_questions, validation_questions
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.held_out import HeldOut


def expected_histories(
    dataset: Dataset, questions: Questions, before: np.ndarray, judged: np.ndarray, *, each: bool
) -> list[list[int]]:
    """Candidates of the user's interactions before; if `each`, also of earlier judged ones."""
    assert dataset.timestamps is not None
    rows = []
    for question, user in enumerate(questions.users.tolist()):
        part = np.concatenate([before, judged]) if each else before
        own = sorted(
            (int(dataset.timestamps[row]), row)
            for row in part.tolist()
            if dataset.user_positions[row] == user
        )
        if each:
            (asked,) = questions.interactions[questions.owners == question].tolist()
            own = [key for key in own if key < (int(dataset.timestamps[asked]), asked)]
        rows.append([int(dataset.candidate_positions[row]) for _, row in own])
    return rows


@pytest.mark.parametrize("method", SPLIT_METHODS)
def test_questions_are_asked_as_the_split_says(small_dataset: Dataset, method: SplitMethod) -> None:
    split = make_split(small_dataset, method=method, validation_fraction=0.1)
    for questions, known, before, judged in (
        (
            held_out_questions(small_dataset, split),
            split.fitted,
            np.concatenate([split.fitted, split.given]),
            split.held_out,
        ),
        (
            validation_questions(small_dataset, split),
            split.training,
            np.concatenate([split.training, split.validation_given]),
            split.validation,
        ),
    ):
        each = method in ("leave_last_out", "global_time")
        assert sorted(questions.interactions.tolist()) == judged.tolist()
        for own, of in (
            (questions.candidates, small_dataset.candidate_positions),
            (questions.users[questions.owners], small_dataset.user_positions),
        ):
            np.testing.assert_array_equal(own, of[questions.interactions])
        assert (np.diff(questions.owners) >= 0).all()
        assert set(questions.owners.tolist()) == set(range(len(questions)))
        assert len(questions) == (len(judged) if each else len(set(questions.users.tolist())))
        met = set(small_dataset.user_positions[known].tolist())
        assert questions.known.tolist() == [user in met for user in questions.users.tolist()]
        assert (questions.askers >= 0).tolist() == questions.known.tolist()
        assert (method == "new_users") <= (not questions.known.any())
        events = questions.histories.events
        expected = expected_histories(small_dataset, questions, before, judged, each=each)
        assert [events.of(row).tolist() for row in range(len(questions))] == expected


def test_equal_times_are_in_the_order_of_the_data() -> None:
    """An interaction at the same time is before the judged one only if it comes first."""
    dataset = Dataset(
        name="synthetic",
        user_ids=("a", "b"),
        candidate_ids=tuple("stuvwxyz"),
        titles=tuple("stuvwxyz"),
        user_positions=np.array([0, 0, 1, 0, 1, 0, 0, 0], np.int32),
        candidate_positions=np.arange(8, dtype=np.int32),
        timestamps=np.array([9, 1, 9, 9, 3, 8, 9, 2]),
    )
    split = make_split(dataset, method="global_time", held_out_fraction=0.5)
    assert split.held_out.tolist() == [0, 2, 3, 6]
    questions = held_out_questions(dataset, split)
    assert questions.candidates.tolist() == [0, 3, 6, 2]
    histories = questions.histories
    assert histories.times is not None
    assert [histories.events.of(row).tolist() for row in range(4)] == [
        [1, 7, 5],
        [1, 7, 5, 0],
        [1, 7, 5, 0, 3],
        [4],
    ]
    assert histories.times.tolist() == [1, 2, 8, 1, 2, 8, 9, 1, 2, 8, 9, 9, 3]


@pytest.mark.parametrize("method", SPLIT_METHODS)
def test_some_questions_keep_what_is_theirs(small_dataset: Dataset, method: SplitMethod) -> None:
    split = make_split(small_dataset, method=method, validation_fraction=0.3)
    questions = validation_questions(small_dataset, split)
    rows = np.array([4, 1, 3])
    some = questions.take(rows)
    assert len(some) == 3
    for place, row in enumerate(rows.tolist()):
        assert (some.users[place], some.known[place]) == (
            questions.users[row],
            questions.known[row],
        )
        own, all_of_them = some.owners == place, questions.owners == row
        np.testing.assert_array_equal(some.interactions[own], questions.interactions[all_of_them])
        np.testing.assert_array_equal(some.candidates[own], questions.candidates[all_of_them])
        assert some.histories.events.of(place).tolist() == (
            questions.histories.events.of(row).tolist()
        )
    sample = validation_questions(small_dataset, split, most=5, seed=1)
    assert len(sample) == 5
    assert (np.diff(sample.users) >= 0).all()
    again = validation_questions(small_dataset, split, most=5, seed=1)
    np.testing.assert_array_equal(sample.interactions, again.interactions)
    assert len(validation_questions(small_dataset, split, most=10_000)) == len(questions)


def test_large_parts_are_asked_about_by_a_sample(
    small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(small_dataset, method="global_time")
    everything = held_out_questions(small_dataset, split)
    monkeypatch.setattr(module, "_MOST_SCORES", 0)
    monkeypatch.setattr(module, "_FEWEST_QUESTIONS", 20)
    sample = held_out_questions(small_dataset, split)
    assert (len(sample), sample.drawn_from) == (20, len(everything))
    assert set(sample.interactions.tolist()) < set(everything.interactions.tolist())
    facts = HeldOut.of(sample)
    assert str(facts).endswith(f"; a random sample of {len(everything)} questions")
    assert HeldOut.of(everything).drawn_from is None


def test_a_user_without_fitted_interactions_asks_as_an_unknown_user(
    small_dataset: Dataset,
) -> None:
    own = np.flatnonzero(small_dataset.user_positions == 3)
    split = Split(
        training=np.setdiff1d(np.arange(small_dataset.num_interactions), own), held_out=own
    )
    questions = held_out_questions(small_dataset, split)
    assert (questions.users.tolist(), questions.askers.tolist()) == ([3], [-1])
    assert questions.histories.events.counts.tolist() == [0]


def test_data_without_times_can_be_asked(small_dataset: Dataset) -> None:
    timeless = dataclasses.replace(small_dataset, timestamps=None)
    split = make_split(timeless, method="new_users")
    histories = held_out_questions(timeless, split).histories
    assert histories.times is None
    assert len(histories.events.columns) == len(split.given)


def test_an_empty_part_has_no_questions(small_dataset: Dataset) -> None:
    everything, nothing = np.arange(small_dataset.num_interactions), np.empty(0, np.int64)
    split = Split(training=everything, held_out=nothing)
    with pytest.raises(ValueError, match="sample has no held-out interactions to evaluate on"):
        held_out_questions(small_dataset, split)
    with pytest.raises(ValueError, match="no validation part; set validation_fraction above 0"):
        validation_questions(small_dataset, split)
