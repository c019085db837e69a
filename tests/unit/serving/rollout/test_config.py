"""Lint findings, the configuration file, and canary shares."""

import json
from pathlib import Path

import pytest
from google.protobuf import text_format

from shortlist.clients.cli.main import main
from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry
from shortlist.serving.repository.server_config import write_config as write_entries
from shortlist.serving.rollout.config import ConfigFile, read_split, write_split
from shortlist.serving.rollout.lint import LABELS_FLAG, Severity, lint
from tests.unit.serving.rollout.fakes import NAME, publish, write_config


def parse(text: str) -> ModelServerConfig:
    config: ModelServerConfig = text_format.Parse(text, ModelServerConfig())
    return config


def model(root: Path, body: str = "", *, name: str = NAME, path: str | None = None) -> str:
    return (
        f'config {{ name: "{name}" base_path: "{path or root / NAME}" '
        f'model_platform: "tensorflow" {body} }} '
    )


def findings(*models: str, current: str | None = None) -> list[str]:
    config = parse(f"model_config_list {{ {''.join(models)} }}")
    before = parse(f"model_config_list {{ {current} }}") if current is not None else None
    return [str(finding) for finding in lint(config, current=before)]


SPECIFIC_1 = "model_version_policy { specific { versions: 1 } }"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (SPECIFIC_1, None),
        (f'{SPECIFIC_1} version_labels {{ key: "stable" value: 1 }}', None),
        (
            f'{SPECIFIC_1} version_labels {{ key: "stable" value: 2 }}',
            "error: retrieval_ivf: label 'stable' points at version 2, which is not served",
        ),
        (
            'version_labels { key: "stable" value: 2 }',
            "warning: retrieval_ivf: label 'stable' points at version 2 while the newest",
        ),
        (
            "model_version_policy { specific { versions: 7 } }",
            "error: retrieval_ivf: version 7 is not in",
        ),
        (
            "model_version_policy { specific { } }",
            "error: retrieval_ivf: the policy names no version",
        ),
    ],
)
def test_labels_and_versions_that_break_are_found(
    tmp_path: Path, body: str, found: str | None
) -> None:
    publish(tmp_path, 1, 2)
    result = findings(model(tmp_path, body))
    assert not result if found is None else result[0].startswith(found)


def test_what_servers_refuse_is_found(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    one = model(tmp_path)
    assert findings(one, one)[0].startswith("error: retrieval_ivf: listed 2 times")
    assert "the base path 'models/x' is relative" in findings(model(tmp_path, path="models/x"))[0]
    no_platform = f'config {{ name: "m" base_path: "{tmp_path / NAME}" }}'
    assert "model_platform is missing" in findings(no_platform)[0]
    assert findings()[0].startswith("error: no model is listed")


def test_models_without_versions_are_found(tmp_path: Path) -> None:
    assert "waits indefinitely" in findings(model(tmp_path))[0]
    assert findings(model(tmp_path, path="gs://bucket/m")) == []  # cannot be looked at from here


def test_versions_that_do_not_serve_are_found(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2)
    folder = tmp_path / NAME / "2"
    (folder / "variables" / "variables.index").unlink()
    assert findings(model(tmp_path)) == []  # a graph without variables needs none
    (folder / "saved_model.pb").write_bytes(b"... VarHandleOp ...")
    assert "has lost its variables" in findings(model(tmp_path))[0]
    (folder / "saved_model.pb").unlink()
    assert "has no saved_model.pb" in findings(model(tmp_path))[0]
    (tmp_path / NAME / "0002").mkdir()
    assert "0002 and 2 are both version 2" in findings(model(tmp_path))[0]


def test_a_model_that_a_reload_would_unload_is_found(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    both = model(tmp_path) + model(tmp_path, name="other")
    (finding,) = findings(model(tmp_path), current=both)
    assert finding.startswith("warning: other: served now but not listed")


def test_lint_is_a_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path, 1)
    config = write_config(tmp_path, SPECIFIC_1)
    assert main(["rollout", "lint", "--config", str(config), f"{LABELS_FLAG}=true"]) == 0
    assert "no findings" in capsys.readouterr().out
    write_config(tmp_path, "model_version_policy { specific { versions: 9 } }")
    assert main(["rollout", "lint", "--config", str(config), "--json", LABELS_FLAG]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["severity"] == Severity.ERROR
    assert main(["rollout", "lint", "--repository", str(tmp_path / "nowhere")]) == 1
    assert "name the file that the servers were started with" in capsys.readouterr().err


def test_labels_need_a_flag_except_in_the_file_of_shortlist_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, 1)
    entry = ModelEntry(versions=(1,), labels={"stable": 1})
    write_entries(tmp_path / CONFIG_FILE, tmp_path, {NAME: entry})
    files = ["--repository", str(tmp_path)]
    assert main(["rollout", "lint", *files]) == 0
    assert main(["rollout", "lint", *files, f"{LABELS_FLAG}=false"]) == 1
    capsys.readouterr()
    write_entries(tmp_path / "other.config", tmp_path, {NAME: entry})
    assert main(["rollout", "lint", *files, "--config", str(tmp_path / "other.config")]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"error: {NAME}: a server that starts with these labels ends at once")
    assert f"start servers with {LABELS_FLAG}=true" in line


def test_a_configuration_that_a_reload_cannot_send_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text('custom_model_config { type_url: "x" }')
    with pytest.raises(RolloutError, match="use a model_config_list"):
        ConfigFile(path).read()


def test_shares_are_kept_for_each_model(tmp_path: Path) -> None:
    config = tmp_path / "models.config"
    assert read_split(config) == {}
    write_split(config, "a", 5)
    write_split(config, "b", 12.5)
    write_split(config, "a", 0)
    assert read_split(config) == {
        "a": {"stable": 1.0},
        "b": {"stable": 0.875, "canary": 0.125},
    }
    with pytest.raises(ValueError, match="percent must be between 0 and 100, got 101"):
        write_split(config, "a", 101)
    (tmp_path / "split.json").write_text("[1]")
    with pytest.raises(RolloutError, match=r"split\.json cannot be read .*; delete it"):
        read_split(config)


def test_base_paths_in_a_container_are_looked_up_in_the_repository(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    repository = ModelRepository(tmp_path)
    config = parse(f"model_config_list {{ {model(tmp_path, SPECIFIC_1, path='/m/' + NAME)} }}")
    assert "waits indefinitely" in str(lint(config)[0])
    assert lint(config, repository=repository) == []
