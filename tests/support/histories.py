"""Histories from lists."""

from collections.abc import Sequence

import numpy as np

from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs

__all__ = ["histories"]


def histories(
    rows: Sequence[Sequence[int]],
    num_candidates: int,
    times: Sequence[int] | None = None,
) -> Histories:
    """Make histories of candidate positions, with the times of all events in turn."""
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    columns = np.array([candidate for row in rows for candidate in row], np.int32)
    return Histories(
        events=Pairs.by_row(owners, columns, num_rows=len(rows)),
        times=None if times is None else np.array(times, np.int64),
        num_candidates=num_candidates,
    )
