"""`shortlist diff` names versions and the headline metric, and leaves lists out."""

import json
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients.cli.main import main
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from shortlist.serving.repository.version import Manifest, write_manifest
from tests.unit.serving.rollout.fakes import NAME, publish


def publish_with(
    root: Path, version: int, *, value: float, protocol: str, curve: list[int], seed: int = 42
) -> None:
    publish(root, version)
    metrics: dict[str, Any] = {
        "headline": {"metric": "hit_rate@10", "protocol": protocol, "value": value},
        "seen_kept": {"hit_rate@10": 0.02},
        protocol: {"hit_rate@10": value, "mrr@50": value},
        "activity": [version],
    }
    index = {"kind": "ivf", "recall": {"curve": curve}}
    config = {"train": {"seed": seed}}
    write_manifest(
        root / NAME / str(version), Manifest(metrics=metrics, index=index, config=config)
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish_with(tmp_path, 1, value=0.1772, protocol="seen_excluded", curve=[1])
    publish_with(tmp_path, 2, value=0.176, protocol="seen_excluded", curve=[2])
    publish_with(tmp_path, 3, value=0.5, protocol="seen_kept", curve=[2])
    entry = ModelEntry(versions=(1, 2), labels={"stable": 1, "canary": 2})
    write_config(tmp_path / CONFIG_FILE, tmp_path, {NAME: entry})
    return tmp_path


def diff(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["diff", "--without-answers", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_headline_metric_comes_first_and_lists_only_differ(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diff(capsys, "1", "2", "--repository", str(root)) == [
        f"{NAME}/1 -> {NAME}/2",
        "  hit_rate@10 (seen excluded): 0.1772 -> 0.1760",
        "  index.recall.curve: differs",
        "  metrics.seen_excluded.hit_rate@10: 0.1772 -> 0.1760",
        "  other metrics that differ (--json lists them): 1",
        "  answers: not compared: not asked for",
    ]


def test_metrics_of_different_held_out_interactions_are_not_compared(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_with(root, 4, value=0.9, protocol="seen_excluded", curve=[2], seed=7)
    lines = diff(capsys, "2", "4", "--repository", str(root))
    assert lines[2].startswith("  ! measured on different held-out interactions")


def test_metrics_of_different_protocols_are_both_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = diff(capsys, "2", "3", "--repository", str(root))
    assert "  hit_rate@10 (seen excluded) 0.1760 -> hit_rate@10 (seen kept) 0.5000" in lines


def test_every_form_of_a_version_is_understood(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = diff(capsys, "1", "2", "--repository", str(root))
    in_repository = ["--repository", str(root)]
    for arguments in (
        [f"{NAME}/1", f"{NAME}/2", *in_repository],
        [f"{NAME}/1", "2", *in_repository],
        ["stable", "canary", *in_repository],
        ["1", "2", "--servable", NAME, *in_repository],
        [f"{NAME}/stable", f"{NAME}/canary", *in_repository],
        [f"{root}/{NAME}/1", f"{root}/{NAME}/2"],
        [f"{root}/{NAME}/stable", "2"],
    ):
        assert diff(capsys, *arguments) == expected, arguments
    assert main(["diff", "1", "2", *in_repository, "--json", "--without-answers"]) == 0
    values = json.loads(capsys.readouterr().out)[0]
    assert values["before"] == f"{NAME}/1"
    assert values["headlines"][1]["value"] == 0.176


def test_version_that_does_not_exist_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, problem in (
        ([f"{NAME}/1", f"{NAME}/9"], f"no version '9' of '{NAME}' in {root}; available: 1, 2, 3"),
        (["1", "9", "--servable", NAME], f"no version '9' of '{NAME}' in {root}"),
        (["1", "9"], f"no model in {root} has both versions 1 and 9"),
        (["nobody/1", "2"], "'nobody/1' is not a version of a model repository"),
    ):
        assert main(["diff", *arguments, "--repository", str(root)]) == 1
        assert problem in capsys.readouterr().err
