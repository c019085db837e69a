"""Hit rates by what users chose after a request."""

from pathlib import Path

import pytest

from shortlist.export.data import DataConfig, load
from shortlist.export.data.outcomes import Outcomes
from shortlist.export.replay.outcomes import Join


def join(folder: Path, rows: str, window: float = 100.0) -> Join:
    path = folder / "events.csv"
    path.write_text("user_id,candidate_id,timestamp\n" + rows)
    return Join(Outcomes.of(load(DataConfig(source=str(path)))), window=window)


def test_an_interaction_counts_once_for_the_latest_request_before_it(tmp_path: Path) -> None:
    found = join(tmp_path, "u,x,1010\nu,y,1060\nu,z,1500\nv,x,1010\n")
    # The later request comes first in the log, as another server wrote it.
    for user, time in (("u", 1050.0), ("u", 1000.0), ("w", 1000.0), ("", 1000.0)):
        found.observe(user, time)
    assert found.add("u", 1050.0, (["y"], ["x"], ["x"])) == ["y"]
    assert found.add("u", 1000.0, (["y"], ["x"], [])) == ["x", "y"]
    assert found.add("w", 1000.0, (["x"], ["x"], [])) == []
    assert found.add("", 1000.0, (["x"], ["x"], [])) == []
    figures = found.figures(["a note"])
    assert figures is not None
    # y belongs to the request at 1050, x to that at 1000; z is too late, v did not ask.
    assert (figures.interactions, figures.users) == (2, 1)
    assert figures.hit_rates == (0.5, 0.5, 0.0)
    assert figures.difference == 0.0
    assert (figures.difference_interval, figures.intervals) == (None, (None, None, None))
    assert (figures.method, figures.notes) == ("plain", ("a note",))


def test_an_interaction_after_a_query_outside_the_sample_does_not_count(tmp_path: Path) -> None:
    """Its list is not the one that the user saw last."""
    found = join(tmp_path, "u,x,1010\nu,y,1060\n")
    found.observe("u", 1000.0)
    found.observe("u", 1050.0)
    assert (found.follow("u", 1000.0), found.follow("u", 900.0)) == (True, False)
    assert found.add("u", 1000.0, (["x"], ["y"], [])) == ["x", "y"]
    figures = found.figures(())
    assert figures is not None
    assert (figures.interactions, figures.hit_rates) == (1, (1.0, 0.0, 0.0))


def test_the_change_has_a_narrower_interval_than_the_rates(tmp_path: Path) -> None:
    """Both versions are judged by the same users, so their noise cancels."""
    rows = "".join(f"u{user},c{user % 4},1010\n" for user in range(200))
    found = join(tmp_path, rows)
    for user in range(200):
        found.observe(f"u{user}", 1000.0)
        better = ["c0", "c1"] if user % 10 == 0 else ["c0"]
        found.add(f"u{user}", 1000.0, (["c0"], [*better, *(["c2"] if user % 8 else [])], ["c0"]))
    figures = found.figures(())
    assert figures is not None
    first, second, recorded = figures.intervals
    assert first is not None
    assert first == recorded
    assert second is not None
    change = figures.difference_interval
    assert change is not None
    assert change.low <= figures.difference <= change.high
    assert change.low > 0
    assert figures.difference == pytest.approx(figures.hit_rates[1] - figures.hit_rates[0])
    assert change.high - change.low < (first.high - first.low) + (second.high - second.low)


def test_outcomes_before_an_export_are_counted(tmp_path: Path) -> None:
    found = join(tmp_path, "u,x,1010\nu,y,1060\n")
    assert found.figures(()) is None
    assert found.share_before(2000.0) == 0.0
    found.observe("u", 1000.0)
    found.add("u", 1000.0, (["x"], ["x"], ["x"]))
    assert found.share_before(1050.0) == 0.5
    assert found.share_before(None) == 0.0
