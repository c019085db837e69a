"""Windows of users' events, which training treats as further users."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data.pairs import Pairs

__all__ = ["WINDOW", "window_counts", "with_windows"]

WINDOW = 40  # events of a window, measured: 20 and 100 are worse


def window_counts(events: Pairs, length: int) -> npt.NDArray[np.int64]:
    """Return the number of windows of each row, 0 for rows of at most `length` events."""
    pieces = -(-events.counts // length)
    pieces[pieces < 2] = 0
    return pieces


def with_windows(events: Pairs, length: int) -> Pairs:
    """Return the rows of events, followed by windows of those with more than `length`.

    Args:
        events: A row per user, oldest event first.
        length: Most events in a window.

    Returns:
        The same rows, then consecutive windows of about equal size, user by user.
    """
    counts = events.counts
    pieces = window_counts(events, length)
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
