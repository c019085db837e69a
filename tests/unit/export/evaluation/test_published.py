"""Published versions are evaluated by their answers."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.clients.cli.main import main
from shortlist.export.config import SplitMethod
from shortlist.export.data.config import DataConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import make_split
from shortlist.export.evaluation.published import PublishedVersion, evaluate_version, split_of
from shortlist.export.pipeline import ExportResult
from shortlist.serving.repository.version import Manifest, write_manifest

pytestmark = pytest.mark.slow

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


def test_repeats_are_no_misses_of_a_published_version(
    small_export: ExportResult, small_dataset: Dataset
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_brute_force"])
    split = split_of(version, small_dataset)
    plain = evaluate_version(version, small_dataset, split)
    more = dataclasses.replace(
        split, held_out=np.sort(np.concatenate([split.held_out, split.fitted[::20]]))
    )
    repeated = evaluate_version(version, small_dataset, more)
    repeats = len(split.fitted[::20])
    assert repeated.held_out.repeats == plain.held_out.repeats + repeats
    for name, rate in plain.metrics["seen_excluded"].items():
        if name.startswith(("hit_rate", "ndcg", "mrr")):
            assert repeated.metrics["seen_excluded"][name] == pytest.approx(rate), name
    kept = [evaluation.metrics["seen_kept"]["hit_rate@10"] for evaluation in (plain, repeated)]
    assert kept[0] != kept[1]


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


@pytest.mark.parametrize("method", ["global_time", "new_users"])
def test_version_that_takes_no_histories_cannot_be_asked_as_served(
    small_export: ExportResult,
    small_dataset: Dataset,
    method: SplitMethod,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_brute_force"])
    split = make_split(small_dataset, method=method)
    monkeypatch.setattr(contract, "RETRIEVE_BY_QUERY", "not yet there")
    with pytest.raises(
        ValueError,
        match=rf"retrieval_brute_force/1 has no signature 'not yet there'.*--split {method} puts "
        "histories into requests; export it again",
    ):
        evaluate_version(version, small_dataset, split)


def test_index_that_misses_is_judged_by_what_it_returns(
    small_export: ExportResult, small_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_brute_force"])
    split = split_of(version, small_dataset)
    whole = evaluate_version(version, small_dataset, split, ks=[10])

    def nothing(self: Any, rows: Any, k: int, *, exclude: bool) -> Any:
        answers = original(self, rows, k, exclude=exclude)
        answers[:, 5:] = -1
        return answers

    from shortlist.export.evaluation.published import _Retrieve

    original = _Retrieve.__call__
    monkeypatch.setattr(_Retrieve, "__call__", nothing)
    half = evaluate_version(version, small_dataset, split, ks=[5, 10])
    rates = half.metrics["seen_excluded"]
    assert rates["hit_rate@10"] == rates["hit_rate@5"]
    assert rates["hit_rate@10"] < whole.metrics["seen_excluded"]["hit_rate@10"]


def test_data_is_recognised_by_its_content(
    small_export: ExportResult, small_dataset: Dataset
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_ivf"])
    version.check_data(dataclasses.replace(small_dataset, name="a copy"))
    more = dataclasses.replace(small_dataset, user_ids=(*small_dataset.user_ids, "new"))
    with pytest.raises(ValueError, match=r"trained on other data: users 60, and sample has 61"):
        version.check_data(more)
    moved = dataclasses.replace(
        small_dataset, candidate_positions=small_dataset.candidate_positions[::-1]
    )
    with pytest.raises(ValueError, match=r"trained on other data: fingerprint \w{32}, and sample"):
        version.check_data(moved)


def test_split_of_an_earlier_release_is_not_taken_for_that_of_this_one(
    small_export: ExportResult, small_dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_ivf"])
    version.trained_on = dataclasses.replace(version.trained_on, fingerprint=None)
    with pytest.raises(ValueError, match=r"exported by an earlier release .*export it again"):
        split_of(version, small_dataset)
    train = {**version.manifest.config["train"], "split": "leave_last_out"}
    config = {**version.manifest.config, "train": train}
    version.manifest = dataclasses.replace(version.manifest, config=config)
    held_out = split_of(version, small_dataset).held_out
    assert len(held_out) == len(small_dataset.user_ids)  # as in every release
    assert "records no fingerprint of its data; only the sizes were compared" in caplog.text


def test_data_of_the_manifest_must_still_be_there(
    small_export: ExportResult, tmp_path: Path
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_ivf"])
    assert version.data_source() == DataConfig(
        source="sample", sample_users=60, sample_candidates=150, sample_interactions=1500
    )
    gone = DataConfig(source=str(tmp_path / "clicks.csv"), user_column="who").as_json()
    for source, problem in (
        (gone, rf"was exported from {tmp_path}/clicks.csv, which does not exist here.* --data"),
        (None, r"does not record where its data 'sample' came from; name it with --data"),
    ):
        version.trained_on = dataclasses.replace(version.trained_on, source=source)
        with pytest.raises(ValueError, match=problem):
            version.data_source()


def test_a_file_whose_name_looks_like_a_pattern_is_there(
    small_export: ExportResult, tmp_path: Path
) -> None:
    version = PublishedVersion(small_export.servables["retrieval_ivf"])
    for name, own in (("clicks[1].csv", "clicks[1].csv"), ("part-1.csv", "part-*.csv")):
        (tmp_path / name).touch()
        config = DataConfig(source=str(tmp_path / own))
        version.trained_on = dataclasses.replace(version.trained_on, source=config.as_json())
        assert version.data_source() == config


def test_folders_that_are_not_exported_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no SavedModel in .*; give the folder of a version"):
        PublishedVersion(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match=r"has no manifest of an export, so its split is not"):
        PublishedVersion(tmp_path)
    write_manifest(tmp_path, Manifest(servable="ranker"))
    with pytest.raises(ValueError, match=r"has no manifest of an export, so its split is not"):
        PublishedVersion(tmp_path)


def test_command_shows_versions_side_by_side(
    small_export: ExportResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --data, they are measured on the data that they were exported from."""
    scann = small_export.servables["retrieval_scann"]
    options = ["--version-dir", str(scann), "--version-dir", "retrieval_ivf/1"]
    options += ["--repository", str(scann.parent.parent), "--resamples", "20"]
    assert main(["evaluate", *options, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert list(answers) == ["retrieval_scann/1", "retrieval_ivf/1"]
    for row in answers.values():
        assert row["intervals"]["seen_kept"]
        assert row["data"]["source"]["sample_interactions"] == 1500
        assert len(row["data"]["fingerprint"]) == 32
        assert row["split"] == {
            "method": "random",
            "held_out_fraction": 0.2,
            "validation_fraction": 0.1,
            "seed": 42,
        }
        assert row["headline"]["protocol"] == "seen_excluded"
    assert main(["evaluate", *options, "--protocol", "seen_kept", "--details"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("seen kept ")  # the protocol that was asked for comes first
    assert [line.split()[0] for line in lines[3:5]] == ["retrieval_scann/1", "retrieval_ivf/1"]
    assert sum(line.startswith("earlier interactions ") for line in lines) == 2
    wrong = ["evaluate", "--data", "sample", *SMALL[:-1], "1600", *options]
    assert main(wrong) == 1
    assert "was trained on other data" in capsys.readouterr().err


def test_versions_of_the_same_name_keep_a_row_each(
    small_export: ExportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions of two repositories are called by their folders."""
    version = small_export.servables["retrieval_brute_force"]
    copy = tmp_path.resolve() / "retrieval_brute_force" / "1"
    shutil.copytree(version, copy)
    options = ["--version-dir", str(version), "--version-dir", str(copy), "--resamples", "20"]
    assert main(["evaluate", *options, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [str(version.resolve()), str(copy)]
