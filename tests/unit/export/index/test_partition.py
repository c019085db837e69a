"""Leaves have equally many places and hold each candidate once, for any candidates."""

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.config import IvfConfig
from shortlist.export.index.partition import ROOM, train_partition

Matrix = npt.NDArray[np.float32]


def candidates(kind: str, count: int, dimension: int = 6) -> Matrix:
    vectors = np.random.default_rng(5).standard_normal((count, dimension)).astype(np.float32)
    if kind == "equal":
        vectors[:] = 1
    elif kind == "zero":
        vectors[:] = 0
    elif kind == "mostly equal":
        vectors[: count * 9 // 10] = 1
    elif kind == "few distinct":
        vectors = np.round(vectors / 2)
    return vectors


@pytest.mark.parametrize("kind", ["normal", "equal", "zero", "mostly equal", "few distinct"])
@pytest.mark.parametrize(
    ("count", "leaves"), [(1, 1), (5, 5), (7, 3), (500, 1), (1000, 40), (3000, 700)]
)
def test_leaves_hold_each_candidate_once(kind: str, count: int, leaves: int) -> None:
    vectors = candidates(kind, count)
    partition = train_partition(vectors, leaves, IvfConfig())
    members = partition.members
    assert len(members) == leaves
    assert members.size >= count
    assert members.size <= count * ROOM + leaves
    np.testing.assert_array_equal(np.sort(members[members < count]), np.arange(count))
    # Empty places come last.
    assert (np.diff((members == count).astype(int), axis=1) >= 0).all()
    least = max(1, min(-(-members.shape[1] // 2), count // leaves))
    assert partition.sizes().min() >= least


@pytest.mark.parametrize("kind", ["normal", "equal", "mostly equal", "few distinct"])
def test_groups_divide_leaves_and_candidates(kind: str) -> None:
    vectors = candidates(kind, 3000)
    partition = train_partition(vectors, 120, IvfConfig(), group_size=8)
    groups = partition.groups()
    np.testing.assert_array_equal(
        np.sort(partition.members[partition.members < 3000]), np.arange(3000)
    )
    assert groups.members.shape == (15, 8 * partition.members.shape[1])
    for members, centroid in zip(groups.members, groups.centroids, strict=True):
        rows = vectors[members[members < 3000]]
        np.testing.assert_allclose(centroid, rows.mean(axis=0), rtol=1e-3, atol=1e-5)


def test_candidates_are_nearer_to_their_leaf_than_to_most_others() -> None:
    vectors = candidates("normal", 4000)
    partition = train_partition(vectors, 80, IvfConfig(), group_size=16)
    leaf_of = np.empty(4001, int)
    leaf_of[partition.members.ravel()] = np.repeat(np.arange(80), partition.members.shape[1])
    far = np.linalg.norm(vectors[:, None] - partition.centroids[None], axis=2)
    nearest = np.argsort(far, axis=1)[:, :2]
    # With the tree alone, 65 % would be in one of their two nearest leaves.
    assert np.mean((nearest == leaf_of[:4000, None]).any(axis=1)) >= 0.85


def test_centroids_and_spreads_describe_the_leaves() -> None:
    vectors = candidates("normal", 103)
    partition = train_partition(vectors, 10, IvfConfig())
    moments = np.diag([4.0, 1, 1, 0, 0, 0])
    spreads = partition.spreads(vectors, moments)
    for leaf, centroid, spread in zip(partition.members, partition.centroids, spreads, strict=True):
        rows = vectors[leaf[leaf < 103]]
        np.testing.assert_allclose(centroid, rows.mean(axis=0), rtol=1e-4, atol=1e-6)
        variances = np.mean((rows - centroid) ** 2, axis=0)
        expected = np.sqrt((4 * variances[0] + variances[1] + variances[2]) / 6)
        np.testing.assert_allclose(spread, expected, rtol=1e-4)


def test_leaves_hold_near_neighbours() -> None:
    """With clusters twice as large as a leaf, few leaves have members of two clusters."""
    rng = np.random.default_rng(8)
    cluster_of = np.repeat(np.arange(20), 40)
    vectors = (rng.standard_normal((20, 8)) * 9)[cluster_of] + rng.standard_normal((800, 8))
    members = train_partition(vectors.astype(np.float32), 40, IvfConfig()).members
    clusters = np.append(cluster_of, -1)[members]
    assert np.mean((clusters == clusters[:, :1])[members < 800]) >= 0.95


def test_training_is_reproducible() -> None:
    vectors = candidates("normal", 2000)
    first, second = (train_partition(vectors, 90, IvfConfig(training_sample=300)) for _ in "ab")
    np.testing.assert_array_equal(first.members, second.members)
    np.testing.assert_array_equal(first.centroids, second.centroids)
