"""Prometheus's file and the page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shortlist.export.data.config import DataConfig
from shortlist.export.monitor.measure import Monitoring, measure
from shortlist.export.monitor.metrics import HELP, PREFIX, exposition
from shortlist.export.monitor.page import render_monitoring
from shortlist.export.monitor.settings import MonitorSettings
from tests.unit.export.monitor.logs import HOUR, START, Shown, write_events, write_log

HOSTILE = 'a"b\\c\n<script>alert(1)</script>'


@pytest.fixture
def monitoring(tmp_path: Path) -> Monitoring:
    users = [f"u{number}" for number in range(40)]
    write_log(
        tmp_path / "logs",
        [
            *(Shown(time=START, user=user, history=["x"]) for user in users),
            *(Shown(time=START + 2 * HOUR, user=user, version=2) for user in users),
            Shown(time=START, label=HOSTILE, known=False),
        ],
    )
    late = START + 2 * HOUR
    write_events(
        tmp_path / "events.csv",
        [
            *((user, "a" if at < 10 else "z", START + 5) for at, user in enumerate(users)),
            *((user, "a" if at < 20 else "z", late + 5) for at, user in enumerate(users)),
        ],
    )
    settings = MonitorSettings(
        logs=(str(tmp_path / "logs"),),
        interactions=DataConfig(source=str(tmp_path / "events.csv")),
        repository=tmp_path / "models",
        window=100.0,
        every=3600.0,
    )
    return measure(settings, now=START + 10.0 * HOUR)


def test_prometheus_reads_the_figures_by_version_label_and_segment(monitoring: Monitoring) -> None:
    samples = {
        (sample.name.removeprefix(PREFIX), *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(monitoring))
        for sample in family.samples
    }
    first = ("label", "stable"), ("model", "retrieval_ivf"), ("version", "1")
    second = (*first[:2], ("version", "2"))
    assert samples["hit_rate", *first] == 0.25
    assert samples["hit_rate", *second] == 0.5
    assert samples["hit_rate_low", *second] < 0.5 < samples["hit_rate_high", *second]
    assert samples["lists", *first[:2], ("segment", "known"), first[2]] == 40
    assert samples["unknown_users", ("label", HOSTILE), *first[1:]] == 1.0
    assert samples["last_success_timestamp_seconds",] == START + 10 * HOUR
    assert samples["interval_seconds",] == 3600
    assert samples["last_list_timestamp_seconds", *second] == START + 2 * HOUR
    assert {name for name, *_ in samples} < HELP.keys()
    assert "coverage" not in {name for name, *_ in samples}  # without a repository


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_versions_segments_and_plots_and_escapes_names(
    monitoring: Monitoring,
) -> None:
    html = render_monitoring(monitoring)
    page = Page()
    page.feed(html)
    assert "script" not in page.tags
    assert not re.search(r"(src|href)=\"(?!#)", html)  # it loads nothing
    assert "<script>alert(1)</script>" in page.text  # as text
    assert "retrieval_ivf/2 stable" in page.text
    assert "50\N{NO-BREAK SPACE}%" in page.text
    assert "Hit rate@10 over time" in page.text
    assert page.tags.count("svg") >= 2
    assert html == render_monitoring(monitoring)


def test_an_empty_log_has_a_page_and_metrics(tmp_path: Path) -> None:
    write_log(tmp_path / "logs", [Shown(time=START)])
    settings = MonitorSettings(logs=(str(tmp_path / "logs"),), last=60.0)
    empty = measure(settings, now=START + 1000.0)
    assert "The request log holds no lists at 2023-11-14 22:16 (UTC)." in render_monitoring(empty)
    assert exposition(empty).count("\n") == 3  # the time of the measurement alone
