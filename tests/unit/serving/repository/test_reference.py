"""Versions are named by a path, or by model and version or label in a repository."""

from pathlib import Path

import pytest

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.reference import find_version
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Versions 1 and 3 of retrieval_ivf, of which 1 is stable."""
    root = tmp_path / "models"
    for version in ("1", "3"):
        (root / "retrieval_ivf" / version).mkdir(parents=True)
    entry = ModelEntry(versions=(1, 3), labels={"stable": 1})
    write_config(root / CONFIG_FILE, root, {"retrieval_ivf": entry})
    return root


@pytest.mark.parametrize("given_root", [True, False])
@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("models/retrieval_ivf/3", 3),
        ("models/retrieval_ivf/stable", 1),
        ("models/x/../retrieval_ivf/3/", 3),
    ],
)
def test_path_names_a_version_with_or_without_a_repository(
    root: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: int, given_root: bool
) -> None:
    monkeypatch.chdir(root.parent)
    for name in (text, str(root.parent / text)):
        found = find_version(name, root=root if given_root else None)
        assert str(found) == f"retrieval_ivf/{version}"
        assert found.path == root / "retrieval_ivf" / str(version)


def test_model_and_version_or_label_are_found_in_the_repository(root: Path) -> None:
    assert find_version("retrieval_ivf/3", root=root).version == 3
    assert find_version("retrieval_ivf/stable", root=root).version == 1
    other = root.parent / "other.config"
    write_config(other, root, {"retrieval_ivf": ModelEntry(labels={"stable": 3})})
    assert find_version("retrieval_ivf/stable", root=root, config=other).version == 3


def test_error_names_what_there_is(root: Path) -> None:
    with pytest.raises(
        RepositoryError,
        match=r"no version '2' of 'retrieval_ivf' in .*models; available: 1, 3, stable",
    ):
        find_version("retrieval_ivf/2", root=root)
    with pytest.raises(
        RepositoryError,
        match=r"'nobody/1' is not a version of a model repository; give "
        r"<repository>/<model>/<version>, or <model>/<version> of those in .*models",
    ):
        find_version("nobody/1", root=root)
