"""The configuration of servers."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from shortlist.clients.wire.messages import LoggingConfig, ModelServerConfig
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import (
    ModelEntry,
    entry_of,
    last_entry,
    read_config,
    render_config,
    request_logs,
    server_base_path,
    with_entry,
    without_entry,
    write_config,
)
from tests.unit.serving.rollout.fakes import NAME, publish
from tests.unit.serving.rollout.fakes import write_config as write_servable_config

SPECIFIC_1 = "model_version_policy { specific { versions: 1 } }"


def parse(text: str) -> ModelServerConfig:
    config: ModelServerConfig = text_format.Parse(text, ModelServerConfig())
    return config


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "config" / "models.config"
    entries = {
        "retrieval_ivf": ModelEntry(),
        "retrieval_scann": ModelEntry(versions=(3, 4), labels={"stable": 3, "canary": 4}),
    }
    write_config(path, tmp_path, entries)
    newest, labelled = read_config(path).model_config_list.config
    assert (newest.name, newest.base_path) == ("retrieval_ivf", str(tmp_path / "retrieval_ivf"))
    assert newest.model_platform == "tensorflow"
    assert not newest.HasField("model_version_policy")
    assert list(labelled.model_version_policy.specific.versions) == [3, 4]
    assert dict(labelled.version_labels) == {"stable": 3, "canary": 4}


def test_request_logs_survive_changes_of_versions(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    logging = LoggingConfig()
    logging.log_collector_config.filename_prefix = "/logs/m"
    logging.sampling_config.sampling_rate = 0.25
    assert request_logs(path) == {}
    write_config(path, tmp_path, {"m": ModelEntry(), "n": ModelEntry()}, {"m": logging})
    assert request_logs(path) == {"m": logging}
    entry = ModelEntry(versions=(2,), labels={"stable": 2})
    changed = with_entry(read_config(path), "m", entry, base_path=tmp_path)
    model, other = changed.model_config_list.config
    assert model.logging_config == logging
    assert not other.HasField("logging_config")


def test_base_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses relative ones."""
    monkeypatch.chdir(tmp_path)
    text = render_config(Path("models"), {"m": ModelEntry()})
    assert f'base_path: "{tmp_path}/models/m"' in text


def test_a_label_without_its_version_is_refused() -> None:
    """The server accepts it and then fails every request for the label."""
    with pytest.raises(ValueError, match=r"points at version 1, which is not among .*: 2"):
        render_config(Path("models"), {"m": ModelEntry(versions=(2,), labels={"stable": 1})})


def test_a_broken_file_is_named_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    with pytest.raises(RepositoryError, match=r"cannot read .*models\.config: No such file"):
        read_config(path)
    path.write_text("model_config_list {\n  nonsense\n}")
    with pytest.raises(RepositoryError, match=r"models.config is not a model server .*: 2:3"):
        read_config(path)


def test_an_entry_is_changed_and_nothing_else(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    before = read_config(write_servable_config(tmp_path, SPECIFIC_1))
    wanted = ModelEntry(versions=(1, 2), labels={"stable": 1})
    after = with_entry(before, NAME, wanted, base_path=tmp_path / NAME)
    assert entry_of(after, NAME) == wanted
    assert entry_of(before, NAME) == ModelEntry(versions=(1,))
    assert with_entry(after, NAME, ModelEntry(versions=(1,)), base_path=tmp_path) == before
    assert [one.name for one in without_entry(after, NAME).model_config_list.config] == ["other"]
    added = with_entry(before, "new", wanted, base_path=tmp_path / "new")
    assert entry_of(added, "new") == wanted
    assert entry_of(added, NAME) == ModelEntry(versions=(1,))


def test_base_paths_in_a_container_may_differ(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    repository = ModelRepository(tmp_path)
    config = parse(f"model_config_list {{ config {{ name: '{NAME}' base_path: '/m/{NAME}' }} }}")
    assert server_base_path(config, repository, NAME) == Path("/m", NAME)
    assert server_base_path(config, repository, "new") == Path("/m/new")
    alone = server_base_path(parse("model_config_list { }"), repository, NAME)
    assert alone == (tmp_path / NAME).resolve()


def test_a_new_server_takes_over_what_the_last_rollout_left(tmp_path: Path) -> None:
    publish(tmp_path, 1, 2, 3)
    repository = ModelRepository(tmp_path)
    labelled = SPECIFIC_1 + 'version_labels { key: "stable" value: 1 }'
    path = write_servable_config(tmp_path, labelled)
    assert last_entry(path, repository, NAME) == ModelEntry(versions=(1,), labels={"stable": 1})
    assert last_entry(path, repository, "unknown") is None
    assert last_entry(tmp_path / "nothing", repository, NAME) is None
    assert last_entry(write_servable_config(tmp_path), repository, NAME) is None
    path = write_servable_config(tmp_path, labelled.replace("1", "9"))
    with pytest.raises(RepositoryError, match=r"points at version 9 .* repository holds 1, 2, 3"):
        last_entry(path, repository, NAME)
