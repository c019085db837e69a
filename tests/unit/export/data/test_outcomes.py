"""Interactions that follow a request."""

from pathlib import Path

import pytest

from shortlist.export.data import DataConfig, DataError, load
from shortlist.export.data.outcomes import Outcomes


def outcomes(folder: Path, text: str) -> Outcomes:
    path = folder / "events.csv"
    path.write_text(text)
    return Outcomes.of(load(DataConfig(source=str(path))), user_id=str.upper)


def test_the_interactions_of_a_window_are_those_after_its_beginning(tmp_path: Path) -> None:
    """An event in the same second as the request may have come before it."""
    found = outcomes(
        tmp_path,
        "user_id,candidate_id,timestamp\nb,x,1020\na,y,1030\na,x,1010\na,z,1000\na,x,1100\n",
    )

    def chosen(user_id: str, time: float, window: float) -> list[str]:
        places = found.after(user_id, time, window)
        return [found.candidate_ids[found.candidates[place]] for place in places]

    assert chosen("A", 1000.0, 30.0) == ["x", "y"]
    assert chosen("A", 999.5, 10.0) == ["z"]
    assert chosen("A", 1000.0, 29.9) == ["x"]
    assert chosen("B", 0.0, 5000.0) == ["x"]
    assert chosen("a", 0.0, 5000.0) == []  # the log has other names
    assert found.owners.tolist() == [0, 0, 0, 0, 1]


def test_interactions_without_times_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events.csv has no times.*--timestamp-column"):
        outcomes(tmp_path, "user_id,candidate_id\na,x\n")
