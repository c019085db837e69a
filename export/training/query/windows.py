"""Windows of users' events, which training treats as further users."""

import numpy as np

from shortlist.export.data.pairs import Pairs

__all__ = ["window_pairs", "with_windows"]


def window_pairs(events: Pairs, length: int, *, short: bool) -> Pairs:
    """Cut the events of each user into consecutive windows of about equal size.

    Args:
        events: A row per user, oldest event first.
        length: Most events in a window.
        short: Also return the events of users who have at most `length`, as one window.

    Returns:
        A row per window, those of a user one after the other.
    """
    counts = events.counts
    pieces = -(-counts // length)
    if not short:
        pieces[pieces < 2] = 0
    kept = np.repeat(pieces > 0, counts)
    bases = np.cumsum(pieces) - pieces
    owners = np.repeat(np.arange(events.num_rows), counts)[kept]
    places = (np.arange(len(events.columns)) - np.repeat(events.starts[:-1], counts))[kept]
    size = -(-counts // np.maximum(pieces, 1))
    rows = bases[owners] + places // size[owners]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=int(pieces.sum())))])
    return Pairs(starts=starts, columns=events.columns[kept])


def with_windows(events: Pairs, length: int) -> Pairs:
    """Return the users' events, followed by windows of those of users with more than `length`."""
    windows = window_pairs(events, length, short=False)
    return Pairs(
        starts=np.concatenate([events.starts, events.starts[-1] + windows.starts[1:]]),
        columns=np.concatenate([events.columns, windows.columns]),
    )
