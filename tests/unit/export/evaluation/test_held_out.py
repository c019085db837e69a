"""Held-out interactions that repeat what the user has in the training part."""

import json

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.evaluate import Evaluation
from shortlist.export.evaluation.held_out import held_out_facts
from tests.support.evaluation import evaluate_popularity, evaluate_users

KS = [1, 2]


def make_dataset(pairs: list[tuple[int, int]]) -> Dataset:
    return Dataset(
        name="clicks",
        user_ids=("ann", "bob"),
        candidate_ids=("a", "b", "c"),
        titles=("a", "b", "c"),
        user_positions=np.array([user for user, _ in pairs], np.int32),
        candidate_positions=np.array([candidate for _, candidate in pairs], np.int32),
    )


# Trained on: ann a, bob b. Held out: ann a again and c twice, bob a.
SOME = make_dataset([(0, 0), (1, 1), (0, 0), (0, 2), (0, 2), (1, 0)])
SOME_SPLIT = Split(training=np.arange(2), held_out=np.arange(2, 6))
ALL = make_dataset([(0, 0), (1, 1), (0, 0), (1, 1)])
ALL_SPLIT = Split(training=np.arange(2), held_out=np.arange(2, 4))


def memory(users: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Scores of a model that ranks first what each user has: a, c, b for ann; b, c, a for bob."""
    return np.array([[3, 1, 2], [1, 3, 2]], np.float32)[users]


def test_seen_excluded_counts_only_what_can_be_hit() -> None:
    evaluation = evaluate_users(memory, SOME, SOME_SPLIT, ks=KS)
    excluded, kept = evaluation.metrics["seen_excluded"], evaluation.metrics["seen_kept"]
    # Without a, ann gets c first; without b, bob gets c and then a.
    assert excluded["hit_rate@1"] == pytest.approx(2 / 3)
    assert excluded["hit_rate@2"] == 1.0
    assert kept["hit_rate@1"] == 1 / 4
    assert kept["hit_rate@2"] == 3 / 4
    assert evaluation.as_json("seen_excluded")["held_out"] == {
        "interactions": 4,
        "users": 2,
        "repeats": 1,
        "as_served": False,
        "weighted": False,
        "drawn_from": None,
    }


def test_activity_and_popularity_count_likewise() -> None:
    evaluation = evaluate_popularity(SOME, SOME_SPLIT, ks=KS)
    scored = evaluate_users(
        lambda users: np.zeros((len(users), 3), np.float32), SOME, SOME_SPLIT, ks=KS
    )
    for judged in (evaluation, scored):
        (bucket,) = judged.activity
        assert (bucket.num_held_out, bucket.num_repeats) == (4, 1)
        rates = judged.metrics["seen_excluded"]
        assert bucket.metrics["seen_excluded"]["hit_rate@1"] == rates["hit_rate@1"]


def test_held_out_part_says_how_much_repeats_and_which_protocol_fits() -> None:
    facts = held_out_facts(SOME, SOME_SPLIT)
    assert evaluate_users(memory, SOME, SOME_SPLIT, ks=KS).held_out == facts
    assert str(facts) == (
        "1 of 4 held-out interactions are with candidates that the user had before; "
        '"seen excluded" counts the other 3'
    )
    assert "use --protocol seen_kept" in (facts.advice("seen_excluded") or "")
    assert facts.advice("seen_kept") is None
    assert "--preset default --protocol seen_kept" in (
        facts.advice("seen_kept", seen_last=True) or ""
    )
    fresh = held_out_facts(SOME, Split(training=np.arange(2), held_out=np.arange(3, 6)))
    assert str(fresh) == "3 held-out interactions of 2 users"
    assert fresh.advice("seen_excluded") is None


def test_only_repeats_leave_nothing_to_measure_with_seen_excluded() -> None:
    def all_values(evaluation: Evaluation) -> str:
        return json.dumps(evaluation.as_json("seen_kept"), allow_nan=False)

    for evaluation in (
        evaluate_users(memory, ALL, ALL_SPLIT, ks=KS, resamples=10),
        evaluate_popularity(ALL, ALL_SPLIT, ks=KS, resamples=10),
    ):
        assert list(evaluation.metrics) == ["seen_kept"]
        assert json.loads(all_values(evaluation))["headline"]["value"] > 0
        with pytest.raises(ValueError, match=r"all 2 held-out interactions are with .* seen_kept"):
            evaluation.headline("seen_excluded")


def test_nothing_held_out_is_an_error() -> None:
    nothing = Split(training=np.arange(6), held_out=np.empty(0, np.int64))
    with pytest.raises(ValueError, match="clicks has no held-out interactions"):
        held_out_facts(SOME, nothing)
