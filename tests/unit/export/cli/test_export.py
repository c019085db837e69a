"""The summary of an export."""

from dataclasses import replace
from pathlib import Path

import pytest

from shortlist.export.cli.export import _as_json, _as_text
from shortlist.export.pipeline import ExportResult
from shortlist.serving.repository.version import GateResult

SERVABLES = ("retrieval_ivf", "retrieval_scann")


def gate(name: str, verdict: str, measured: str = "fine") -> GateResult:
    return GateResult(gate=name, verdict=verdict, measured=measured, required="-")


@pytest.fixture
def result() -> ExportResult:
    return ExportResult(
        version=3,
        servables={name: Path("my models", name, "3") for name in SERVABLES},
        metrics={
            "seen_kept": {"hit_rate@10": 0.0625, "ndcg@10": 0.0},
            "seen_excluded": {"hit_rate@10": 0.25, "ndcg@10": 0.125},
            "headline": {"metric": "hit_rate@10", "protocol": "seen_excluded", "value": 0.25},
            "held_out": {"interactions": 40, "users": 20, "repeats": 0},
        },
        seconds={"train": 1.23456},
        report=Path("my models/retrieval_ivf/3/assets.extra/report.html"),
        gates={
            name: [gate("complete", "passed"), gate("latency", "skipped", "no live version")]
            for name in SERVABLES
        },
        baselines={"popularity": 0.125, "ease": 0.5},
    )


def test_summary_names_what_was_published_how_good_it_is_and_how_to_serve_it(
    result: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["shortlist"])
    assert _as_text(result, Path("my models")).splitlines() == [
        "published version 3",
        "  retrieval_ivf            my models/retrieval_ivf/3",
        "  retrieval_scann          my models/retrieval_scann/3",
        "  report                   my models/retrieval_ivf/3/assets.extra/report.html",
        "  gate latency skipped: no live version",
        "",
        "hit_rate@10 (seen excluded) 0.2500; popularity 0.1250, ease 0.5000",
        "40 held-out interactions of 20 users",
        "",
        "on the held-out interactions  seen excluded  seen kept",
        "hit_rate@10                          0.2500     0.0625",
        "",
        "serve it with: shortlist serve --repository 'my models'",
    ]


@pytest.mark.parametrize(("popularity", "told"), [(0.2499, False), (0.25, True)])
def test_summary_says_if_popularity_is_as_good(
    result: ExportResult, popularity: float, told: bool
) -> None:
    result = replace(result, baselines={"popularity": popularity})
    text = _as_text(result, Path("models"))
    assert ("popularity alone is as good" in text) is told


def test_gate_that_one_servable_did_not_pass_names_it(result: ExportResult) -> None:
    gates = {SERVABLES[0]: [gate("ops", "passed")], SERVABLES[1]: [gate("ops", "allowed", "odd")]}
    lines = _as_text(replace(result, gates=gates), Path("models")).splitlines()
    assert "  gate ops allowed: odd (retrieval_scann)" in lines


def test_comparison_with_the_live_version_is_shown_even_if_it_passed(result: ExportResult) -> None:
    gates = {
        name: [gate("quality", "passed", f"change {change}"), gate("ops", "passed")]
        for name, change in zip(SERVABLES, ("+1%", "-1%"), strict=True)
    }
    lines = _as_text(replace(result, gates=gates), Path("models")).splitlines()
    assert [line for line in lines if "gate" in line] == [
        "  gate quality passed: change +1% (retrieval_ivf)",
        "  gate quality passed: change -1% (retrieval_scann)",
    ]


def test_json_holds_baselines_and_every_gate(result: ExportResult) -> None:
    values = _as_json(result)
    assert values["baselines"] == {"popularity": 0.125, "ease": 0.5}
    assert values["gates"]["retrieval_ivf"] == {"complete": "passed", "latency": "skipped"}
