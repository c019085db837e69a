"""Samples and figures."""

from pathlib import Path

import pytest

from shortlist.clients.request_log.reading import LogFileError
from shortlist.serving.request_log.sampling import DistinctSample, Reservoir
from shortlist.serving.request_log.selection import SelectedLog
from shortlist.serving.request_log.stats import Latencies, collect
from tests.unit.serving.request_log.examples import START, answer, record, write_log


def test_a_reservoir_is_uniform_and_in_order() -> None:
    sizes = []
    for start in range(0, 1000, 10):
        reservoir = Reservoir[int](100)
        for number in range(start, start + 1000):
            reservoir.add(number)
        items = reservoir.items()
        assert items == sorted(items)
        assert len(set(items)) == 100
        sizes.append(sum(items) / 100 - start)
    assert 400 < sum(sizes) / len(sizes) < 600
    short = Reservoir[str](5)
    short.add("a")
    assert (short.items(), short.seen) == (["a"], 1)


def test_distinct_items_are_counted() -> None:
    sample = DistinctSample[int](1024)
    for number in range(1000):
        sample.add(str(number % 100).encode(), number)
    assert (sample.count, sample.exact) == (100, True)
    assert sorted(sample.items()) == list(range(100))  # the first of each
    for number in range(50_000):
        sample.add(str(number).encode(), number)
    assert not sample.exact
    assert abs(sample.count - 50_000) < 50_000 * 4 / 32  # four standard errors


def test_quantiles_are_right_to_a_hundredth() -> None:
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    for number in range(1, 1000):
        latencies.add(number / 1000)
    assert latencies.quantile(0.5) == pytest.approx(0.5, rel=0.01)
    assert latencies.quantile(1.0) == pytest.approx(0.999, rel=0.01)


def test_figures_by_version_and_label(tmp_path: Path) -> None:
    records = [
        record({"user_id": ["u1", "u2"]}, answer([["a"], []], [True, False]), rate=0.5),
        record({"user_id": ["u1"]}, at=600, latency_us=3000, version_label="canary", version=4),
        record({"candidate_id": ["c"]}, at=1200, signature="similar", transport="REST"),
        record({"user_id": ["a", "b"]}, answer([["x"]])),
    ]
    log = SelectedLog(write_log(tmp_path, records))
    found = collect(log).as_json()
    assert (found["requests"], found["estimated_requests"], found["users"]) == (3, 4.0, 2)
    assert (found["first"], found["last"]) == (START, START + 1200)
    stable, canary = found["parts"]
    assert (stable["version"], stable["label"], stable["requests"]) == (3, None, 2)
    assert (stable["lists"], stable["unknown_users"], stable["empty"]) == (2, 1, 1)
    assert (canary["version"], canary["label"]) == (4, "canary")
    assert canary["p50_ms"] == pytest.approx(3.0, rel=0.01)
    assert found["candidates"] == {"0": 1, "1": 1, "2": 1}
    assert found["transports"] == {"GRPC": 2, "REST": 1}
    assert {row["signature"] for row in found["signatures"]} == {"serving_default", "similar"}
    periods = found["requests_per_second"]
    assert len(periods) <= 48
    assert sum(row["rate"] * row["seconds"] for row in periods) == pytest.approx(4.0, rel=0.01)
    assert log.notes() == ["left out 1: not readable (2 user ids have 1 answers)"]


def test_nothing_has_no_figures(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match="no records yet"):
        collect(SelectedLog(write_log(tmp_path, [])))
