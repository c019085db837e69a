"""What the verbs that publish say about servers that load the newest version."""

from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.export.gates.publication import Published
from shortlist.export.pipeline import ExportResult
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from tests.unit.serving.rollout.fakes import NAME, publish

LIVE = f"load the newest version of {NAME} at once, so version 2 is live where one runs"


@pytest.fixture
def arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> list[str]:
    """The verb, with the training or the gates left out."""
    publish(tmp_path, 1, 2)
    path = tmp_path / NAME / "2"
    if request.param == "publish":
        result = Published(version=2, path=str(path), results={NAME: []})
        monkeypatch.setattr(
            "shortlist.export.cli.gates.publish_saved_model", lambda *_, **__: result
        )
        return ["publish", str(tmp_path / NAME / "1"), "--name", NAME]
    export = ExportResult(version=2, servables={NAME: path}, report=path, metrics={}, seconds={})
    monkeypatch.setattr("shortlist.export.pipeline.run_export", lambda *_, **__: export)
    return ["export", "--data", "sample", "--json"]


@pytest.mark.parametrize("arguments", ["publish", "export"], indirect=True)
def test_the_verb_says_that_a_version_is_live_at_once(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = [*arguments, "--repository", str(tmp_path)]
    assert main(local) == 0
    assert "is live" not in capsys.readouterr().err
    write_config(tmp_path / CONFIG_FILE, tmp_path, {NAME: ModelEntry()})
    assert main(local) == 0
    assert LIVE in capsys.readouterr().err
    write_config(tmp_path / CONFIG_FILE, tmp_path, {NAME: ModelEntry(versions=(1,))})
    assert main(local) == 0
    assert "is live" not in capsys.readouterr().err
