"""Publishing to a store that cannot rename, in memory."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.object_store import ObjectStore, is_url

NAME = "retrieval_ivf"
FILES = ("assets.extra/manifest", "saved_model.pb", "variables/data", "variables/variables.index")


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    url = f"memory://{uuid.uuid4().hex}/models"
    yield ObjectStore(url)
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def servable(tmp_path: Path) -> Path:
    for file in FILES:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(file)
    return tmp_path


def test_a_version_is_copied_completely(store: ObjectStore, servable: Path, tmp_path: Path) -> None:
    version = store.claim(NAME)
    assert store.publish(NAME, version, servable) == f"{store.url}/{NAME}/1"
    assert store.versions(NAME) == [1]
    store.download(NAME, 1, tmp_path / "copy")
    for file in FILES:
        assert (tmp_path / "copy" / file).read_text() == file


def test_an_object_with_a_name_that_leads_elsewhere_is_not_copied(
    store: ObjectStore, servable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store takes any name; whoever may write one object must not write files here."""
    store.publish(NAME, store.claim(NAME), servable)
    system = fsspec.filesystem("memory")
    names = [f"{base}/../../../../stolen" for base in system.find(store.url)[:1]]
    monkeypatch.setattr(system, "find", lambda path: names)
    folder = tmp_path / "deep" / "copy"
    with pytest.raises(RepositoryError, match="is not a file of a version"):
        store.download(NAME, 1, folder)
    assert not folder.parent.exists()


@pytest.mark.parametrize("killed_at", range(1, 5))
def test_the_graph_comes_last_so_that_an_incomplete_version_never_loads(
    store: ObjectStore, servable: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")
    real, calls = system.put_file, 0

    class Killed(BaseException):
        pass

    def put_file(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise Killed
        real(*args, **options)

    monkeypatch.setattr(system, "put_file", put_file)
    with pytest.raises(Killed):
        store.publish(NAME, store.claim(NAME), servable)
    assert store.versions(NAME) == []
    assert not system.exists(f"{store.url}/{NAME}/1/saved_model.pb")
    monkeypatch.undo()
    store.publish(NAME, store.claim(NAME), servable)
    assert store.versions(NAME) == [2]  # its number is never used again


def test_a_store_that_fails_is_reported_in_one_line(
    store: ObjectStore, servable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_file(*args: Any, **options: Any) -> None:
        raise OSError("quota exceeded")

    monkeypatch.setattr(fsspec.filesystem("memory"), "put_file", put_file)
    with pytest.raises(RepositoryError, match=r"cannot write .*/1: quota exceeded; .* next number"):
        store.publish(NAME, store.claim(NAME), servable)


def test_two_publishers_get_different_numbers(store: ObjectStore) -> None:
    assert [store.claim(NAME) for _ in range(3)] == [1, 2, 3]
    assert store.claim(NAME, at_least=9) == 9


def test_above_the_highest_version_no_number_is_claimed(store: ObjectStore, servable: Path) -> None:
    store.publish(NAME, 2**63 - 1, servable)
    with pytest.raises(RepositoryError, match=rf"{NAME}/{2**63 - 1} has the highest version"):
        store.claim(NAME)


def test_a_publisher_that_was_slower_takes_the_next_number(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.claim(NAME)
    # It listed the claims before the other one made its own.
    monkeypatch.setattr(ObjectStore, "_folders", staticmethod(lambda system, path: []))
    assert store.claim(NAME) == 2


def test_versions_are_immutable(store: ObjectStore, servable: Path) -> None:
    store.publish(NAME, 1, servable)
    with pytest.raises(RepositoryError, match="exists; versions are immutable"):
        store.publish(NAME, 1, servable)


def test_a_folder_without_graph_is_refused(store: ObjectStore, servable: Path) -> None:
    (servable / "saved_model.pb").unlink()
    with pytest.raises(RepositoryError, match=r"has no saved_model\.pb"):
        store.publish(NAME, 1, servable)


def test_a_missing_version_lists_the_existing_ones(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"no complete version 3 .*: none"):
        store.download(NAME, 3, tmp_path)


def test_an_unknown_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nosuch://bucket cannot be opened: .*nosuch"):
        ObjectStore("nosuch://bucket").versions(NAME)
    assert is_url("gs://bucket/models")
    assert not is_url(str(tmp_path))
