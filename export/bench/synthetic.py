"""Seeded synthetic data to measure with: vectors, queries and interactions of any size."""

import argparse
from typing import Final

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset

__all__ = ["CANDIDATE_SEED", "QUERY_SEED", "make_interactions", "make_vectors", "sizes_of"]

CANDIDATE_SEED: Final = 1
QUERY_SEED: Final = 2
_DEFAULT_SIZES: Final = (10_000, 100_000)
# Standard deviations fall by this power of their rank, so the leading 16 of 64 directions hold
# 76 % of the energy: more than in towers trained for 5 epochs on MovieLens latest-small (67 %)
# and `sample` (47 %), because longer training concentrates it.
_POWER = 0.6
# Centres and rows have the same variance: half of a row comes from its cluster, half is its own.
_CENTERS = 1000
_ROWS = 65_536
_CHUNK = 4_000_000  # float64 draws in memory at once, 32 MB


def sizes_of(args: argparse.Namespace) -> tuple[int, ...]:
    """Return the corpus sizes that the options ask for.

    Raises:
        ValueError: An option is out of range.
    """
    sizes = tuple(dict.fromkeys(args.size or _DEFAULT_SIZES))
    for option, value in (
        ("--size", min(sizes)),
        ("--dimension", args.dimension),
        ("--threads", 1 if args.threads is None else args.threads),
    ):
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    if args.repository is not None and len(sizes) > 1:
        raise ValueError("--repository holds servables of one size; give --size once")
    return sizes


def make_vectors(kind: str, count: int, dimension: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Float32 `[count, dimension]` vectors of one distribution.

    Args:
        kind: `towers`: unit vectors with a decaying spectrum, like those of trained towers;
            `mixture`: unit vectors in 1000 isotropic Gaussian clusters, without leading
            directions, harder for any index.
        count: Number of vectors.
        dimension: Length of a vector.
        seed: Random seed of the vectors; the distribution does not depend on it.
    """
    rng = np.random.default_rng([seed, dimension])
    vectors = rng.standard_normal((count, dimension), dtype=np.float32)
    if kind == "towers":
        vectors *= np.arange(1, dimension + 1, dtype=np.float32) ** -_POWER
    elif kind == "mixture":
        centers = np.random.default_rng(dimension).standard_normal(
            (_CENTERS, dimension), dtype=np.float32
        )
        clusters = rng.integers(0, _CENTERS, count)
        for start in range(0, count, _ROWS):  # limits temporary memory
            vectors[start : start + _ROWS] += centers[clusters[start : start + _ROWS]]
    else:
        raise ValueError(f"vectors must be towers or mixture, got {kind!r}")
    for start in range(0, count, _ROWS):
        rows = vectors[start : start + _ROWS]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


def make_interactions(
    *, num_users: int, num_candidates: int, num_interactions: int, seed: int
) -> Dataset:
    """Interactions with uneven users and candidates, for time and memory; pairs may repeat.

    Nothing but popularity can be learned from them.

    Args:
        num_users: Number of users; their activity is log-normal.
        num_candidates: Size of the corpus; popularity follows Zipf's law.
        num_interactions: Number of interactions.
        seed: Random seed.
    """
    random = np.random.default_rng(seed)
    activity = np.cumsum(random.lognormal(0.0, 1.0, num_users))
    popularity = np.cumsum(1.0 / np.arange(10, num_candidates + 10))
    users = _draw(random, activity, num_interactions)
    users.sort()
    candidates = _draw(random, popularity, num_interactions)
    ids = tuple(map(str, range(num_candidates)))
    return Dataset(
        name="synthetic",
        user_ids=tuple(map(str, range(num_users))),
        candidate_ids=ids,
        titles=ids,
        user_positions=users,
        candidate_positions=candidates,
    )


def _draw(
    random: np.random.Generator, cumulative: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.int32]:
    drawn = np.empty(count, np.int32)
    for start in range(0, count, _CHUNK):
        part = drawn[start : start + _CHUNK]
        part[:] = np.searchsorted(cumulative, random.random(len(part)) * cumulative[-1])
    return drawn
