"""Hit rates compared with a plain loop and with TFRS."""

import json

import numpy as np
import pytest

from shortlist.export._tf import tf, tfrs
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.evaluate import KS
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
