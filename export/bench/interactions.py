"""Made interactions of any size, as arrays from the start."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset

__all__ = ["make_interactions"]

_CHUNK = 4_000_000  # float64 draws in memory at once, 32 MB


def make_interactions(
    *, num_users: int, num_candidates: int, num_interactions: int, seed: int
) -> Dataset:
    """Interactions whose users and candidates are both uneven; a pair may occur twice.

    Nothing can be learned from them but popularity: they are for time and memory.

    Args:
        num_users: Activity is log-normal.
        num_candidates: Popularity falls like Zipf's law.
        num_interactions: Exactly.
        seed: Of all random numbers.
    """
    random = np.random.default_rng(seed)
    activity = np.cumsum(random.lognormal(0.0, 1.0, num_users))
    popularity = np.cumsum(1.0 / np.arange(10, num_candidates + 10))
    users = _draw(random, activity, num_interactions)
    users.sort()
    candidates = _draw(random, popularity, num_interactions)
    ids = tuple(map(str, range(num_candidates)))
    return Dataset(
        name="made",
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
