"""Leaves are equally large and hold each candidate once, whatever the candidates."""

import numpy as np
import numpy.typing as npt
import pytest

from export.config import IvfConfig
from export.index.partition import train_partition

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
def test_leaves_are_equally_large_and_hold_each_candidate_once(
    kind: str, count: int, leaves: int
) -> None:
    vectors = candidates(kind, count)
    members = train_partition(vectors, leaves, IvfConfig()).members
    assert len(members) <= leaves
    assert members.shape[1] == -(-count // leaves)
    assert members.size - count < members.shape[1]
    np.testing.assert_array_equal(np.sort(members[members < count]), np.arange(count))
    # A leaf's empty places are its last, and none is wholly empty.
    assert (members[:, 0] < count).all()
    assert (np.diff((members == count).astype(int), axis=1) >= 0).all()


def test_centroids_and_spreads_are_those_of_the_leaves() -> None:
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


def test_leaves_are_of_near_neighbours() -> None:
    """Clusters twice as large as a leaf: hardly a leaf has members of two clusters."""
    rng = np.random.default_rng(8)
    cluster_of = np.repeat(np.arange(20), 40)
    vectors = (rng.standard_normal((20, 8)) * 9)[cluster_of] + rng.standard_normal((800, 8))
    members = train_partition(vectors.astype(np.float32), 40, IvfConfig()).members
    clusters = cluster_of[members]
    assert np.mean(clusters == clusters[:, :1]) >= 0.95


def test_training_is_reproducible() -> None:
    vectors = candidates("normal", 2000)
    first, second = (train_partition(vectors, 90, IvfConfig(training_sample=300)) for _ in "ab")
    np.testing.assert_array_equal(first.members, second.members)
    np.testing.assert_array_equal(first.centroids, second.centroids)
