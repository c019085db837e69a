"""Hit rates against a slow reckoning and against TFRS."""

import numpy as np
import pytest

from export._tf import tf, tfrs
from export.data.dataset import Dataset
from export.evaluate import hit_rates
from export.split import Split, random_split


@pytest.fixture
def embeddings(small_dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return (
        rng.standard_normal((len(small_dataset.user_ids), 6)).astype(np.float32),
        rng.standard_normal((len(small_dataset.candidate_ids), 6)).astype(np.float32),
    )


@pytest.fixture
def split(small_dataset: Dataset) -> Split:
    return random_split(small_dataset, held_out_fraction=0.2, seed=1)


def test_hit_rate_with_seen_kept_equals_tfrs(
    small_dataset: Dataset, split: Split, embeddings: tuple[np.ndarray, np.ndarray]
) -> None:
    queries, candidates = embeddings
    users = small_dataset.user_positions[split.held_out]
    wanted = small_dataset.candidate_positions[split.held_out]
    metric = tfrs.metrics.FactorizedTopK(
        tfrs.layers.factorized_top_k.BruteForce(k=100).index(tf.constant(candidates))
    )
    metric.update_state(
        tf.constant(queries[users]), tf.constant(candidates[wanted]), tf.constant(wanted)
    )
    expected = [float(value) for value in metric.result()]
    rates = hit_rates(queries, candidates, small_dataset, split)["seen_kept"]
    assert list(rates.values()) == pytest.approx(expected, abs=1e-6)


def test_hit_rate_with_seen_excluded_equals_a_loop(
    small_dataset: Dataset, split: Split, embeddings: tuple[np.ndarray, np.ndarray]
) -> None:
    queries, candidates = embeddings
    users, wanted = small_dataset.user_positions, small_dataset.candidate_positions
    hits = []
    for held_out in split.held_out:
        user, own = users[held_out], wanted[held_out]
        seen = set(wanted[split.training][users[split.training] == user]) - {own}
        order = np.argsort(-(candidates @ queries[user]), kind="stable")
        hits.append(own in [c for c in order if c not in seen][:10])
    rates = hit_rates(queries, candidates, small_dataset, split, ks=[10])
    assert rates["seen_excluded"]["hit_rate@10"] == pytest.approx(np.mean(hits))


def test_split_is_complete_disjoint_and_repeatable(small_dataset: Dataset) -> None:
    first = random_split(small_dataset, held_out_fraction=0.25, seed=4)
    again = random_split(small_dataset, held_out_fraction=0.25, seed=4)
    both = np.concatenate([first.training, first.held_out])
    assert sorted(both) == list(range(small_dataset.num_interactions))
    assert len(first.held_out) == round(small_dataset.num_interactions * 0.25)
    np.testing.assert_array_equal(first.held_out, again.held_out)
