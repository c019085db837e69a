"""Comparison of recipes and baselines."""

import json
import re
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.export.bench.quality import ABLATIONS, Spread, as_markdown, compare, recipe_of
from shortlist.export.config import PRESETS
from shortlist.export.data.dataset import Dataset

SAMPLE = (
    *("--data", "sample", "--sample-users", "60", "--sample-candidates", "150"),
    *("--sample-interactions", "1500"),
)


def test_every_ablation_changes_the_default_recipe() -> None:
    for row in ABLATIONS:
        assert recipe_of(row) != PRESETS["default"], row


def test_unknown_row_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown row 'magic'; choose from default, seen_kept"):
        recipe_of("magic")


def test_baseline_does_not_depend_on_the_other_rows_and_seeds_spread(
    small_dataset: Dataset,
) -> None:
    alone = compare(small_dataset, ["popularity"], [1, 2])["popularity"]
    together = compare(small_dataset, ["ease", "popularity"], [1, 2])["popularity"]
    name = "seen_excluded hit_rate@10"
    assert alone[name] == together[name]
    assert alone[name].deviation > 0
    each = [compare(small_dataset, ["popularity"], [s])["popularity"][name].mean for s in (1, 2)]
    assert alone[name].mean == pytest.approx(sum(each) / 2)


def test_table_is_markdown() -> None:
    metrics = {"seen_excluded hit_rate@10": Spread(mean=0.5, deviation=0.01)}
    text = as_markdown({"it": {**metrics, "seconds": Spread(mean=2, deviation=0)}})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[2] == ["it", "–", "–", "0.5000 ± 0.0100", "–", "2.0"]
    assert {len(line) for line in lines} == {6}


def test_evaluate_prints_recipe_and_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", *SAMPLE, "--epochs", "2", "--resamples", "20", "--json"]
    assert main(argv) == 0
    values = json.loads(capsys.readouterr().out)["default"]
    low, high = values["intervals"]["seen_kept"]["hit_rate@10"]
    assert low <= values["seen_kept"]["hit_rate@10"] <= high


def test_evaluate_writes_the_same_report_for_the_same_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = []
    for name in ("one.html", "other.html"):
        argv = ["evaluate", *SAMPLE, "--epochs", "2", "--resamples", "20"]
        assert main([*argv, "--report", str(tmp_path / name)]) == 0
        printed = capsys.readouterr()
        assert re.search(
            r"^seen excluded +hit_rate@10 .*\ndefault .*\npopularity ", printed.out, re.M
        )
        assert re.search(r"^train .* 2 epochs$", printed.err, re.M)
        page = (tmp_path / name).read_text(encoding="utf-8")
        pages.append(re.sub(r"<time.*?</time>", "", page))
    assert pages[0] == pages[1]
    assert "The most active user" in pages[0]


def test_a_report_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path, tmp_path / "missing" / "report.html"):
        assert main(["evaluate", *SAMPLE, "--report", str(path)]) == 1
        assert f"--report must name a file in an existing folder, got {path}" in (
            capsys.readouterr().err
        )


def test_bench_quality_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quality", *SAMPLE, "--seeds", "2", "--row", "popularity"]) == 0
    assert re.search(r"\| popularity +\| +0\.", capsys.readouterr().out)


def test_bench_quality_takes_the_first_seed(capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for first in ("43", "44"):
        argv = ["--seeds", "1", "--first-seed", first, "--row", "popularity", "--json"]
        assert main(["bench", "quality", *SAMPLE, *argv]) == 0
        tables.append(json.loads(capsys.readouterr().out)["popularity"])
    assert tables[0]["seen_kept ndcg@100"] != tables[1]["seen_kept ndcg@100"]


def test_bench_quality_refuses_no_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quality", *SAMPLE, "--seeds", "0"]) == 1
    assert "--seeds must be at least 1, got 0" in capsys.readouterr().err
