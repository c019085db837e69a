"""Hit rates compared with a plain loop and with TFRS."""

import json

import numpy as np
import pytest

from shortlist.export._tf import tf, tfrs
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.evaluate import KS
from shortlist.export.evaluation.reference import buckets
from tests.support.evaluation import evaluate_users, inner_products


@pytest.fixture
def embeddings(small_dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return (
        rng.standard_normal((len(small_dataset.user_ids), 6)).astype(np.float32),
        rng.standard_normal((len(small_dataset.candidate_ids), 6)).astype(np.float32),
    )


@pytest.fixture
def split(small_dataset: Dataset) -> Split:
    return make_split(small_dataset, held_out_fraction=0.2, seed=1)


def test_hit_rate_with_seen_kept_equals_tfrs(
    small_dataset: Dataset, split: Split, embeddings: tuple[np.ndarray, np.ndarray]
) -> None:
    queries, candidates = embeddings
    users = small_dataset.user_positions[split.held_out]
    targets = small_dataset.candidate_positions[split.held_out]
    metric = tfrs.metrics.FactorizedTopK(
        tfrs.layers.factorized_top_k.BruteForce(k=100).index(tf.constant(candidates))
    )
    metric.update_state(
        tf.constant(queries[users]), tf.constant(candidates[targets]), tf.constant(targets)
    )
    expected = [float(value) for value in metric.result()]
    evaluation = evaluate_users(inner_products(queries, candidates), small_dataset, split)
    rates = [evaluation.metrics["seen_kept"][f"hit_rate@{k}"] for k in KS]
    assert rates == pytest.approx(expected, abs=1e-6)


def test_hit_rate_with_seen_excluded_equals_a_loop(
    small_dataset: Dataset, split: Split, embeddings: tuple[np.ndarray, np.ndarray]
) -> None:
    queries, candidates = embeddings
    users, targets = small_dataset.user_positions, small_dataset.candidate_positions
    hits = []
    for held_out in split.held_out:
        user, own = users[held_out], targets[held_out]
        seen = set(targets[split.training][users[split.training] == user])
        order = np.argsort(-(candidates @ queries[user]), kind="stable")
        hits.append(own in [c for c in order if c not in seen][:10])
    evaluation = evaluate_users(inner_products(queries, candidates), small_dataset, split, ks=[10])
    assert evaluation.metrics["seen_excluded"]["hit_rate@10"] == pytest.approx(np.mean(hits))


def test_evaluation_is_plain_json_with_intervals_and_activity(
    small_dataset: Dataset, split: Split, embeddings: tuple[np.ndarray, np.ndarray]
) -> None:
    evaluation = evaluate_users(
        inner_products(*embeddings), small_dataset, split, ks=[10, 10_000], resamples=50
    )
    values = json.loads(json.dumps(evaluation.as_json("seen_excluded"), allow_nan=False))
    assert values["held_out"]["interactions"] == len(split.held_out)
    rates = values["seen_excluded"]
    assert values["headline"]["value"] == rates["hit_rate@10"]
    assert values["headline"]["interval"] == values["intervals"]["seen_excluded"]["hit_rate@10"]
    assert evaluation.headline("seen_kept").name == "hit_rate@10 (seen kept)"
    low, high = values["intervals"]["seen_kept"]["hit_rate@10"]
    assert low <= values["seen_kept"]["hit_rate@10"] <= high
    assert sum(row["num_held_out"] for row in values["activity"]) == len(split.held_out)
    # A cut-off beyond the corpus has no meaning.
    assert "hit_rate@10000" not in values["seen_kept"]


def test_validation_counts_as_seen_when_the_held_out_part_judges(
    small_dataset: Dataset, embeddings: tuple[np.ndarray, np.ndarray]
) -> None:
    scorer = inner_products(*embeddings)
    whole = make_split(small_dataset, held_out_fraction=0.2, seed=1)
    parted = make_split(small_dataset, held_out_fraction=0.2, seed=1, validation_fraction=0.3)
    assert evaluate_users(scorer, small_dataset, whole) == evaluate_users(
        scorer, small_dataset, parted
    )


def test_references_are_the_scores_histories_and_users_of_the_questions() -> None:
    """Of requests: what the servable keeps of a history is not sent."""
    dataset = Dataset(
        name="by time",
        user_ids=("a", "b"),
        candidate_ids=("w", "x", "y", "z"),
        user_positions=np.array([0, 0, 0, 0, 1], np.int32),
        candidate_positions=np.array([0, 1, 2, 3, 0], np.int32),
        timestamps=np.arange(5),
        titles=("w", "x", "y", "z"),
    )
    split = Split(training=np.arange(2), held_out=np.arange(2, 5), method="global_time")
    scores = np.array([[4.0, 3.0, 2.0, 1.0], [8.0, 7.0, 6.0, 5.0]])
    num_kept = dataset.user_counts(split.fitted)
    kept, excluded = (
        evaluate_users(
            lambda users: scores[users], dataset, split, ks=[1], num_kept=num_kept
        ).references[protocol]
        for protocol in ("seen_kept", "seen_excluded")
    )
    assert kept.scores == buckets(np.array([4.0, 4.0, 8.0]))
    assert excluded.scores == buckets(np.array([2.0, 1.0, 8.0]))
    assert kept.histories == buckets(np.array([0, 1, 0]))
    assert kept.unknown_users == pytest.approx(1 / 3)
