"""A tracker learns what it does not have; a tracker that is away costs a line."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from shortlist.export.cli.experiments import track as track_command
from shortlist.export.tracking.repository import track_repository
from shortlist.export.tracking.tracker import Published, TrackingError, check_tracker
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import ModelEntry, render_config
from shortlist.serving.repository.version import Manifest, write_manifest

IVF, EXACT = "retrieval_ivf", "retrieval_brute_force"


class Recorder:
    """A tracker in memory."""

    address = "memory"

    def __init__(self) -> None:
        self.runs: list[list[tuple[str, int]]] = []
        self.versions: dict[str, dict[str, int]] = {}
        self.labels: dict[str, dict[str, int]] = {}

    def known(self, name: str) -> Collection[str]:
        return self.versions.get(name, {})

    def log(self, servables: Sequence[Published]) -> None:
        self.runs.append([(one.name, one.version) for one in servables])
        for one in servables:
            self.versions.setdefault(one.name, {})[one.fingerprint] = one.version

    def label(self, name: str, labels: Mapping[str, str | None]) -> Mapping[str, str]:
        after = {key: self.versions[name][at] for key, at in labels.items() if at is not None}
        before = self.labels.get(name, {})
        self.labels[name] = after
        return {key: "moved" for key, at in after.items() if before.get(key) != at}


def publish(root: Path, version: int) -> ModelRepository:
    for name in (IVF, EXACT):
        manifest = Manifest(model="retrieval", servable=name, version=version)
        (root / name / str(version)).mkdir(parents=True)
        write_manifest(root / name / str(version), manifest)
    return ModelRepository(root)


def test_each_publication_is_one_run_and_is_recorded_once(tmp_path: Path) -> None:
    tracker, config = Recorder(), tmp_path / "none"
    publish(tmp_path / "models", 1)
    repository = publish(tmp_path / "models", 2)
    (tmp_path / "models" / IVF / "3").mkdir()  # a SavedModel without a manifest
    track_repository(tracker, repository, [EXACT, IVF], config_path=config)
    assert tracker.runs == [[(EXACT, 1), (IVF, 1)], [(EXACT, 2), (IVF, 2)]]
    assert track_repository(tracker, repository, [EXACT, IVF], config_path=config) == []
    assert len(tracker.runs) == 2


def test_labels_follow_the_configuration_of_the_servers(tmp_path: Path) -> None:
    tracker, config, root = Recorder(), tmp_path / "models.config", tmp_path / "models"
    publish(root, 1)
    repository = publish(root, 2)
    for labels in ({"stable": 1, "canary": 2}, {"stable": 2, "previous": 1}):
        entry = ModelEntry(versions=(1, 2), labels=labels)
        config.write_text(render_config(root, {IVF: entry}))
        changes = track_repository(tracker, repository, [EXACT, IVF], config_path=config)
        assert tracker.labels == {IVF: labels}
        assert {change.label for change in changes if change.label} == set(labels)


def test_a_tracker_that_is_away_costs_a_publication_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(text: str) -> Recorder:
        raise TrackingError("MLflow at http://there failed: refused; check MLFLOW_TRACKING_URI")

    monkeypatch.setattr(track_command, "open_tracker", away)
    publish(tmp_path, 1)
    track_command.track_published("mlflow:shop", tmp_path, [IVF])
    (line,) = capsys.readouterr().err.splitlines()
    assert "published, but not tracked" in line
    assert f"`shortlist track mlflow:shop --repository {tmp_path}`" in line


@pytest.mark.parametrize("text", ["wandb", "mlflow:", "MLflow", ""])
def test_what_is_not_a_tracker_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write mlflow or mlflow:EXPERIMENT"):
        check_tracker(text)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shortlist.serving.installed.find_spec", lambda name: None)
    with pytest.raises(TrackingError, match=r"pip install 'shortlist\[mlflow\]'"):
        check_tracker("mlflow:shop")
