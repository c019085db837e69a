"""Intervals of shares."""

import numpy as np

from shortlist.export.evaluation.intervals import share_interval


def test_events_of_one_user_count_as_little_as_one() -> None:
    """100 users with ten equal events each know no more than 100 events."""
    users, hits = np.arange(100), np.arange(100) < 30
    alone = share_interval(users, hits)
    tenfold = share_interval(np.repeat(users, 10), np.repeat(hits, 10))
    assert alone is not None
    assert tenfold == alone
    # The normal approximation: 0.3 +- 1.96 * sqrt(0.3 * 0.7 / 100).
    assert abs(alone.low - 0.21) < 0.02
    assert abs(alone.high - 0.39) < 0.02


def test_few_users_have_no_interval() -> None:
    assert share_interval(np.arange(29), np.ones(29, np.bool_)) is None


def test_many_users_are_drawn_in_groups() -> None:
    users = np.arange(50_000)
    found = share_interval(users, users % 10 == 0, resamples=200)
    assert found is not None
    assert 0.095 < found.low < 0.1 < found.high < 0.105
