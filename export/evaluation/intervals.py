"""Intervals of shares whose parts belong to users."""

import numpy as np
import numpy.typing as npt

from shortlist.export.evaluation.metrics import Interval

__all__ = ["LEAST_USERS", "share_interval"]

LEAST_USERS = 30  # resampling fewer gives intervals that are too narrow
_MOST_UNITS = 20_000  # users, or groups of users


def share_interval(
    users: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_] | npt.NDArray[np.float64],
    *,
    weights: npt.NDArray[np.float64] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Return the 95% interval of a share by resampling users, whose events are not independent.

    Efron's percentile method, as in `metrics.bootstrap`.

    Args:
        users: int64 `[num_events]`, number of the user of each event.
        hits: `[num_events]`, whether it counts, or by how much.
        weights: `[num_events]`, how often each event counts; None for once.
        resamples: Number of draws.
        seed: Random seed.

    Returns:
        The interval; None with fewer than `LEAST_USERS` users.
    """
    owners, units = np.unique(users, return_inverse=True)
    count = len(owners)
    if count < LEAST_USERS:
        return None
    random = np.random.default_rng(seed)
    if count > _MOST_UNITS:
        units = (random.permutation(count) % _MOST_UNITS)[units]
        count = _MOST_UNITS
    weights = np.ones(len(users)) if weights is None else weights
    sums = np.stack(
        [np.bincount(units, part, minlength=count) for part in (hits * weights, weights)]
    )
    draws = np.empty(resamples)
    for draw in range(resamples):
        times = np.bincount(random.integers(count, size=count), minlength=count)
        drawn, all_ = sums @ times
        draws[draw] = drawn / all_
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(low=float(low), high=float(high))
