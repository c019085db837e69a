"""Windows of users' events, which training treats as further users."""

import numpy as np

from shortlist.export.data.pairs import Pairs

__all__ = ["with_windows"]


def with_windows(events: Pairs, length: int) -> Pairs:
    """Return the rows of events, followed by windows of those with more than `length`.

    Args:
        events: A row per user, oldest event first.
        length: Most events in a window.

    Returns:
        The same rows, then consecutive windows of about equal size, user by user.
    """
    counts = events.counts
    pieces = -(-counts // length)
    pieces[pieces < 2] = 0
    kept = np.repeat(pieces > 0, counts)
    bases = np.cumsum(pieces) - pieces
    owners = np.repeat(np.arange(events.num_rows), counts)[kept]
    places = (np.arange(len(events.columns)) - np.repeat(events.starts[:-1], counts))[kept]
    size = -(-counts // np.maximum(pieces, 1))
    rows = bases[owners] + places // size[owners]
    ends = len(events.columns) + np.cumsum(np.bincount(rows, minlength=int(pieces.sum())))
    weights = events.weights
    return Pairs(
        starts=np.concatenate([events.starts, ends]),
        columns=np.concatenate([events.columns, events.columns[kept]]),
        weights=None if weights is None else np.concatenate([weights, weights[kept]]),
    )
