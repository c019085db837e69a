"""Comparison of recipes and baselines."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.export.bench.machine import machine
from shortlist.export.bench.quality import ABLATIONS, as_markdown, compare, recipe_of
from shortlist.export.config import PRESETS
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import dataset_fingerprint

SAMPLE = (
    *("--data", "sample", "--sample-users", "60", "--sample-candidates", "150"),
    *("--sample-interactions", "1500"),
)


def test_every_ablation_changes_the_default_recipe() -> None:
    for row in ABLATIONS:
        assert recipe_of(row) != PRESETS["default"], row


def test_unknown_row_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown row 'magic'; choose from default, table, seen_kept"
    ):
        recipe_of("magic")


def test_ablations_change_the_preset_that_is_asked_for() -> None:
    towers, config = recipe_of("users weighted equally", base="seen_kept")
    assert (towers, config.seen_last_epochs) == (PRESETS["seen_kept"][0], 60)
    assert config.activity_power == 0.0


@pytest.mark.slow
def test_baseline_does_not_depend_on_the_other_rows_and_seeds_spread(
    small_dataset: Dataset,
) -> None:
    alone = compare(small_dataset, ["popularity"], [1, 2]).rows["popularity"]
    together = compare(small_dataset, ["ease", "popularity"], [1, 2]).rows["popularity"]
    name = "seen_excluded hit_rate@10"
    assert alone[name] == together[name]
    assert alone[name].deviation > 0
    each = [
        compare(small_dataset, ["popularity"], [seed]).rows["popularity"][name].mean
        for seed in (1, 2)
    ]
    assert alone[name].mean == pytest.approx(sum(each) / 2)


def test_row_that_cannot_be_measured_is_omitted_with_the_reason(small_dataset: Dataset) -> None:
    timeless = dataclasses.replace(small_dataset, timestamps=None)
    lines: list[str] = []
    rows = ["recent_popularity", "popularity"]
    comparison = compare(timeless, rows, [1, 2], progress=lines.append)
    assert list(comparison.rows) == ["popularity"]
    assert len(lines) == 3  # the omitted row is tried once
    reason = comparison.omitted["recent_popularity"]
    assert as_markdown(comparison).splitlines()[-1] == f"recent_popularity is omitted: {reason}"


@pytest.mark.slow
def test_table_is_markdown_under_what_it_is_of(small_dataset: Dataset) -> None:
    comparison = compare(small_dataset, ["popularity"], [1, 2], method="leave_last_out", ks=[3, 10])
    text = as_markdown(comparison, protocols=["seen_kept"], ks=[3, 10], metrics=["ndcg"])
    heading, _, *rows = text.splitlines()
    held_out = comparison.held_out[1]
    assert heading == (
        f"sample: {small_dataset.num_interactions:,} interactions of 60 users with 150 candidates, "
        f"fingerprint {dataset_fingerprint(small_dataset)}; split leave_last_out, seeds 1, 2: "
        f"{held_out.interactions} interactions held out; {machine()}."
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows]
    assert lines[0] == ["recipe", "seen kept ndcg@3", "seen kept ndcg@10", "seconds"]
    value = comparison.rows["popularity"]["seen_kept ndcg@3"].mean
    assert lines[2][:2] == ["popularity", f"{value:.4f} ± 0.0000"]  # this split has no seed
    assert {len(line) for line in lines} == {4}


@pytest.mark.slow
def test_table_of_new_users_has_the_metrics_of_the_literature(small_dataset: Dataset) -> None:
    comparison = compare(small_dataset, ["popularity"], [1], method="new_users")
    text = as_markdown(comparison, protocols=["seen_excluded"], ks=[10])
    heading, _, heads, _, row = text.splitlines()
    assert "interactions held out, asked as served; " in heading
    assert [cell.strip() for cell in heads.split("|")[2:-2]] == [
        "seen excluded hit rate@10",
        "seen excluded user ndcg@100",
        "seen excluded user recall@20",
        "seen excluded user recall@50",
    ]
    recall = comparison.rows["popularity"]["seen_excluded user_recall@20"].mean
    assert row.split("|")[4].strip() == f"{recall:.4f} ± 0.0000"
    assert 0 < recall < 1


@pytest.mark.slow
def test_evaluate_shows_metrics_of_new_users_as_served(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["evaluate", *SAMPLE, "--epochs", "2", "--resamples", "20", "--split", "new_users"]
    assert main([*argv, "--details"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "; asked as served: each request carried what the user did before" in lines[0]
    assert lines[2].split()[:2] == ["seen", "excluded"]
    assert lines[2].split()[-4:-1] == ["user_ndcg@100", "user_recall@20", "user_recall@50"]
    (recall,) = [line.split() for line in lines if line.startswith("user_recall@20 ")]
    assert 0 <= float(recall[1]) <= 1
    assert recall[2].startswith("[")  # with an interval


@pytest.mark.slow
def test_evaluate_prints_recipe_and_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", *SAMPLE, "--epochs", "2", "--resamples", "20", "--json"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert re.search(
        r"^split .* \(random: times order the interactions of \d+ users, fewer than 100\), ",
        printed.err,
        re.M,
    )
    values = json.loads(printed.out)["default"]
    assert values["split"]["method"] == "random"
    low, high = values["intervals"]["seen_kept"]["hit_rate@10"]
    assert low <= values["seen_kept"]["hit_rate@10"] <= high


@pytest.mark.slow
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
        assert re.search(r"^train .* 2 epochs, decay ", printed.err, re.M)
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


@pytest.mark.slow
def test_bench_quality_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quality", *SAMPLE, "--seeds", "2", "--row", "popularity"]) == 0
    printed = capsys.readouterr()
    assert re.search(r"\| popularity +\| +0\.", printed.out)
    assert re.search(r"^seed 44, popularity: hit_rate@10 \(seen excluded\) 0\.", printed.err, re.M)


@pytest.mark.slow
def test_bench_quality_takes_the_first_seed(capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for first in ("43", "44"):
        argv = ["--seeds", "1", "--first-seed", first, "--row", "popularity", "--json"]
        assert main(["bench", "quality", *SAMPLE, *argv]) == 0
        tables.append(json.loads(capsys.readouterr().out)["rows"]["popularity"])
    assert tables[0]["seen_kept ndcg@100"] != tables[1]["seen_kept ndcg@100"]


def test_bench_quality_refuses_no_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "quality", *SAMPLE, "--seeds", "0"]) == 1
    assert "--seeds must be at least 1, got 0" in capsys.readouterr().err
