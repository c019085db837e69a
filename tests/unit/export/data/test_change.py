"""What a change does to positions and tables."""

import numpy as np

from shortlist.export.data.change import CorpusChange


def test_those_that_stay_close_up_and_new_ones_follow() -> None:
    change = CorpusChange(before=4, kept=np.array([0, 2, 3]), added=2)
    assert change.after == 5
    assert change.moved().tolist() == [0, 5, 1, 2, 5]
    table = np.arange(4, dtype=np.float32)[:, None]
    assert change.rows(table, np.array([[8.0], [9.0]], np.float32)).ravel().tolist() == [
        *(0, 2, 3),
        *(8, 9),
    ]
