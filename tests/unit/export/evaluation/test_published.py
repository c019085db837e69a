"""Published versions are evaluated by their answers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients.cli.main import main
from shortlist.export.data.dataset import Dataset
from shortlist.export.evaluation.published import PublishedVersion, evaluate_version, split_of
from shortlist.export.pipeline import ExportResult

SMALL = ["--sample-users", "60", "--sample-candidates", "150", "--sample-interactions", "1500"]


@pytest.mark.parametrize("index", ["brute_force", "ivf"])
def test_exact_index_gives_the_metrics_of_the_manifest(
    small_export: ExportResult, small_dataset: Dataset, index: str
) -> None:
    """The ivf of this export searches all its leaves."""
    version = PublishedVersion(small_export.servables[f"retrieval_{index}"])
    split = split_of(version, small_dataset)
    answers = evaluate_version(version, small_dataset, split).as_json("seen_excluded")
    for name in ("seen_kept", "seen_excluded", "held_out", "activity"):
        expected = json.loads(json.dumps(version.manifest.metrics[name]))
        assert json.loads(json.dumps(answers[name])) == expected


def test_version_without_seen_candidates_gets_them_in_requests(
    small_export: ExportResult, small_dataset: Dataset
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_brute_force"])
    split = split_of(version, small_dataset)
    expected = evaluate_version(version, small_dataset, split)
    version.manifest = dataclasses.replace(
        version.manifest, config={**version.manifest.config, "keep_seen": False}
    )
    assert evaluate_version(version, small_dataset, split) == expected


def test_index_that_misses_is_judged_by_what_it_returns(
    small_export: ExportResult, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_brute_force"])
    split = split_of(version, small_dataset)
    whole = evaluate_version(version, small_dataset, split, ks=[10])

    def nothing(self: Any, users: Any, k: int, *, exclude_seen: bool) -> Any:
        answers = original(self, users, k, exclude_seen=exclude_seen)
        answers[:, 5:] = -1
        return answers

    from shortlist.export.evaluation.published import _Retrieve

    original = _Retrieve.__call__
    monkeypatch.setattr(_Retrieve, "__call__", nothing)
    half = evaluate_version(version, small_dataset, split, ks=[5, 10])
    rates = half.metrics["seen_excluded"]
    assert rates["hit_rate@10"] == rates["hit_rate@5"]
    assert rates["hit_rate@10"] < whole.metrics["seen_excluded"]["hit_rate@10"]


def test_other_data_and_other_folders_are_refused(
    small_export: ExportResult, small_dataset: Dataset, tmp_path: Path
) -> None:
    path = small_export.servables["retrieval_ivf"]
    version = PublishedVersion(path)
    other = dataclasses.replace(small_dataset, name="other")
    with pytest.raises(ValueError, match=r"trained on other data: name 'sample', and --data has"):
        version.check_data(other)
    with pytest.raises(ValueError, match=r"no SavedModel in .*; give the folder of a version"):
        PublishedVersion(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match=r"has no manifest, so its split is not known"):
        PublishedVersion(tmp_path)


def test_command_shows_versions_side_by_side(
    small_export: ExportResult, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [small_export.servables[f"retrieval_{index}"] for index in ("scann", "ivf")]
    options = [text for path in paths for text in ("--version-dir", str(path))]
    arguments = ["evaluate", "--data", "sample", *SMALL, *options, "--resamples", "20", "--json"]
    assert main(arguments) == 0
    answers = json.loads(capsys.readouterr().out)
    assert list(answers) == ["retrieval_scann/1", "retrieval_ivf/1"]
    assert answers["retrieval_ivf/1"]["intervals"]["seen_kept"]
    wrong = ["evaluate", "--data", "sample", *SMALL[:-1], "1600", *options]
    assert main(wrong) == 1
    assert "was trained on other data" in capsys.readouterr().err
