"""Names of models are checked where something is published, not where it is read."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from shortlist.export.config import ExportConfig
from shortlist.export.gates.publication import publish_saved_model
from shortlist.export.gates.settings import GateSettings
from shortlist.serving.embedded.lifecycle.version_policy import AllVersions, choose_versions
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.names import check_model_name, parse_version
from shortlist.serving.repository.object_store import ObjectStore
from shortlist.serving.repository.selection import find_servables
from shortlist.serving.repository.server_config import ModelEntry, read_config, write_config

VALID = ("retrieval", "retrieval_ivf", "R2-d2", "v1.2", "_x", "7", "x" * 128)
INVALID = (
    *("", " ", "a b", "a\n", "\nb", "a\tb", "a:b", "a/b", "/a", "../a", ".hidden", ".", ".."),
    *("-a", "--model", "modèle", "a\x00b", "a*b", "$a", 'a"b', "x" * 129),
)


@pytest.mark.parametrize("name", VALID)
def test_a_plain_name_is_valid(name: str) -> None:
    check_model_name(name)


def publisher(name: str, root: Path) -> None:
    with ModelRepository(root).publisher(["retrieval_ivf", name]):
        pass


WAYS: dict[str, Callable[[str, Path], object]] = {
    "configuration": lambda name, root: ExportConfig(model=name),
    "publication": publisher,
    "publication of a SavedModel": lambda name, root: publish_saved_model(
        root, name, str(root), GateSettings()
    ),
    "publication to a store": lambda name, root: ObjectStore(f"memory://{root}").claim(name),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", INVALID)
def test_any_other_name_is_refused_with_the_rule(tmp_path: Path, way: str, name: str) -> None:
    rule = f"{name!r} is not a valid model name; use up to 128 ASCII letters, digits"
    with pytest.raises(RepositoryError, match=f"^{re.escape(rule)}"):
        WAYS[way](name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_every_servable_is_checked_before_training() -> None:
    with pytest.raises(RepositoryError, match=r"'x{128}_ivf' is not a valid model name"):
        ExportConfig(model="x" * 128, indexes=("ivf",))


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--data", "sample", "--model", "a b"],
        ["publish", ".", "--name", "a b"],
        ["publish", ".", "--name=-a", "--repository", "memory://m"],
    ],
)
def test_commands_refuse_it_in_one_line(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "is not a valid model name; use" in error
    assert len(error.splitlines()) == 1


def test_a_configuration_file_is_checked_like_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "export.toml"
    file.write_text('model = "a:b"\n')
    assert main(["export", "--data", "sample", "--config", str(file)]) == 1
    assert "'a:b' is not a valid model name" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a b", "a:b", "-a", "modèle", "a\nb"])
def test_a_model_published_earlier_under_another_name_is_still_served(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name / "1").mkdir(parents=True)
    [servable] = find_servables(ModelRepository(tmp_path))
    assert (servable.name, servable.version) == (name, 1)
    write_config(tmp_path / "config", tmp_path, {name: ModelEntry()})
    [model] = read_config(tmp_path / "config").model_config_list.config
    assert (model.name, model.base_path) == (name, str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("7", 7), ("007", 7), ("+7", 7), ("-7", -7), (" 7 ", 7), ("0", 0)),
        *((str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63))),
        *((str(2**63), None), ("9" * 20, None), ("9" * 5000, None)),
        *(("latest", None), ("1.5", None), ("", None), ("²", None), ("٣", None), ("1_0", None)),
        *((".publishing-7", None), ("--7", None), ("0x7", None)),
    ],
)
def test_a_version_is_what_the_server_takes_for_one(name: str, version: int | None) -> None:
    assert parse_version(name) == version
    served = choose_versions([name], AllVersions())
    assert served == ({} if version is None else {version: name})
