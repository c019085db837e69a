"""Files, links and names that no publisher makes: one line with the remedy, and no dead end."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.reference import find_version


def publish(root: Path, name: str = "m") -> int:
    with ModelRepository(root).publisher([name], lock_timeout=0) as publisher:
        (publisher.stage(name) / "saved_model.pb").touch()
        publisher.publish()
    return publisher.version


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish(tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,  # a reader waits for a writer
        lambda path: path.symlink_to("missing"),
        lambda path: path.symlink_to(path),
        lambda path: path.write_bytes(b"\xff\0" * 1000),
        lambda path: path.write_text(""),
    ],
)
def test_an_odd_last_version_is_named(root: Path, make: Callable[[Path], None]) -> None:
    odd = root / "m" / ".last_version"
    odd.unlink()
    make(odd)
    with pytest.raises(RepositoryError, match=r"\.last_version (is not a file|holds '.*); delete"):
        publish(root)
    with pytest.raises(RepositoryError, match="delete it if no higher version"):
        ModelRepository(root).check_publishable(["m"])
    odd.rmdir() if odd.is_dir() and not odd.is_symlink() else odd.unlink()
    assert publish(root) == 2


@pytest.mark.parametrize("prefix", [".publishing-", ".last_version."])
def test_odd_leftovers_are_removed_and_links_not_followed(root: Path, prefix: str) -> None:
    kept = root.parent / "kept"
    (kept / "inside").mkdir(parents=True)
    folder = root / "m"
    (folder / f"{prefix}file").touch()
    (folder / f"{prefix}folder" / "inside").mkdir(parents=True)
    (folder / f"{prefix}link").symlink_to(kept)
    (folder / f"{prefix}dangling").symlink_to("missing")
    os.mkfifo(folder / f"{prefix}pipe")
    assert publish(root) == 2
    assert (kept / "inside").is_dir()
    assert [path.name for path in folder.glob(f"{prefix}*")] == []


def test_a_leftover_that_cannot_be_removed_does_not_stop_publishing(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "m" / ".publishing-3").mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert publish(root) == 2
    assert "cannot remove" in caplog.text


def test_a_link_in_place_of_the_lock_is_not_followed(root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (root / ".publish.lock").unlink()
    (root / ".publish.lock").symlink_to(precious)
    with pytest.raises(RepositoryError, match=r"cannot write to .*publish\.lock"):
        publish(root)
    assert precious.read_text() == "precious"


def test_a_number_that_a_link_or_file_has_is_skipped(root: Path) -> None:
    (root / "m" / "2").symlink_to("missing")
    with pytest.raises(RepositoryError, match="2 exists; versions are never overwritten"):
        publish(root)
    assert publish(root) == 3


@pytest.mark.parametrize("call", ["open", "rename"])
def test_a_repository_that_is_read_only_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*arguments: object, **keywords: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", "here")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(RepositoryError, match=rf"{root}: Read-only file system \(here\); choose"):
        publish(root)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../m",
        "a/b",
        "/m",
        "a\0b",
        "a\nb",
        "x" * 300,
        "\udcff",
        "é" * 200,
        "-x",
        "--",
    ],
)
def test_odd_names_are_refused(root: Path, name: str) -> None:
    repository = ModelRepository(root)
    with pytest.raises(RepositoryError, match="is not a valid model name"):
        publish(root, name)
    with pytest.raises(RepositoryError, match="is not a valid model name"):
        repository.check_publishable([name])
    # An earlier release may have published under some of them.
    with suppress(RepositoryError):
        assert repository.versions(name) == []
    assert repository.models() == ["m"]


@pytest.mark.parametrize(
    "text",
    ["", "..", "m\0/1", "m/1\0", "x" * 300 + "/1", "x" * 5000 + "/1", "m/\udcff", "m/" * 999],
)
def test_odd_references_are_refused(root: Path, text: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        find_version(text, root=root)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("path", "message"),
    [("x" * 300, "cannot read the model repository xxx"), ("a\0b", "is not a valid path")],
)
def test_a_path_that_no_repository_can_have_is_named(path: str, message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        ModelRepository(Path(path)).versions("m")
