"""Synthetic clicks of users who come back to a few favourites."""

import numpy as np

from shortlist.export.data.dataset import Dataset

__all__ = ["make_clicks"]


def make_clicks(
    *, num_users: int, num_candidates: int, total: int, shown: int | None = None
) -> Dataset:
    """Return the first `shown` of `total` clicks, a minute apart; None for all of them."""
    random = np.random.default_rng(5)
    favourites = random.dirichlet([0.1] * num_candidates, num_users).cumsum(axis=1)
    users = random.integers(0, num_users, total, np.int32)[:shown]
    candidates = (favourites[users] < random.random(total)[:shown, None]).sum(axis=1)
    ids = tuple(f"p{number}" for number in range(num_candidates))
    return Dataset(
        name="clicks",
        user_ids=tuple(f"u{number}" for number in range(num_users)),
        candidate_ids=ids,
        titles=ids,
        user_positions=users,
        candidate_positions=candidates.clip(0, num_candidates - 1).astype(np.int32),
        timestamps=1_700_000_000 + np.arange(total)[:shown] * 60,
    )
