"""The configuration that servers are given."""

from pathlib import Path

import pytest

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.server_config import (
    ModelEntry,
    read_config,
    render_config,
    write_config,
)


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "config" / "models.config"
    entries = [
        ModelEntry(name="retrieval_ivf", base_path=tmp_path / "retrieval_ivf"),
        ModelEntry(
            name="retrieval_scann",
            base_path=tmp_path / "retrieval_scann",
            versions=(3, 4),
            labels={"stable": 3, "canary": 4},
        ),
    ]
    write_config(path, entries)
    newest, labelled = read_config(path).model_config_list.config
    assert (newest.name, newest.base_path) == ("retrieval_ivf", str(tmp_path / "retrieval_ivf"))
    assert newest.model_platform == "tensorflow"
    assert not newest.HasField("model_version_policy")
    assert list(labelled.model_version_policy.specific.versions) == [3, 4]
    assert dict(labelled.version_labels) == {"stable": 3, "canary": 4}


def test_base_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses relative ones."""
    monkeypatch.chdir(tmp_path)
    text = render_config([ModelEntry(name="m", base_path=Path("models/m"))])
    assert f'base_path: "{tmp_path}/models/m"' in text


def test_a_label_without_its_version_is_refused() -> None:
    """The server accepts it and then fails every request for the label."""
    with pytest.raises(ValueError, match=r"points at version 1, which is not among .*: 2"):
        ModelEntry(name="m", base_path=Path("m"), versions=(2,), labels={"stable": 1})


def test_two_models_of_one_name_are_refused() -> None:
    entry = ModelEntry(name="m", base_path=Path("m"))
    with pytest.raises(ValueError, match="must differ, got m, m"):
        render_config([entry, entry])


def test_a_broken_file_is_named_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    with pytest.raises(RepositoryError, match=r"cannot read .*models\.config: No such file"):
        read_config(path)
    path.write_text("model_config_list {\n  nonsense\n}")
    with pytest.raises(RepositoryError, match=r"models.config is no model server .*: 2:3"):
        read_config(path)
