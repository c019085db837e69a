"""`shortlist bench tower`, in a process of its own because it sets TensorFlow's threads."""

import pytest

from tests.support.command import run_json

pytestmark = pytest.mark.slow


def test_all_lengths_of_histories_are_timed() -> None:
    measured = run_json("bench", "tower", "--size", "50", "--repeats", "2")
    rows = [(row["tower"], row["history"]) for row in measured["rows"]]
    assert rows == [("table", 0), *(("history", events) for events in (0, 5, 50, 200))]
    assert all(row["single_ms"] > 0 and row["batch_ms"] > 0 for row in measured["rows"])
