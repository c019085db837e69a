"""Versions that load when they are asked for, with a loader that loads nothing."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.lifecycle.on_demand import OnDemandSource
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from tests.unit.serving.embedded.fakes import FakeLoader


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest.fixture
def source(tmp_path: Path, loader: FakeLoader) -> OnDemandSource:
    for version in (1, 2):
        (tmp_path / "m" / str(version)).mkdir(parents=True)
    return OnDemandSource(ModelRepository(tmp_path), loader, tmp_path / CONFIG_FILE)


def version_of(source: OnDemandSource, **which: int | str) -> int:
    with source.acquire("m", **which) as servable:  # type: ignore[arg-type]
        return servable.version


def test_each_version_loads_once_and_only_when_asked_for(
    source: OnDemandSource, loader: FakeLoader
) -> None:
    assert loader.loads == []
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: version_of(source), range(40))) == {2}
    assert loader.loads == [("m", 2)]
    assert version_of(source, version=1) == 1
    assert loader.loads == [("m", 2), ("m", 1)]


def test_newest_version_stays_the_same_until_the_end(
    source: OnDemandSource, tmp_path: Path
) -> None:
    assert version_of(source) == 2
    (tmp_path / "m" / "3").mkdir()
    assert version_of(source) == 2
    assert version_of(source, version=3) == 3
    assert version_of(source) == 2


def test_labels_are_read_when_they_are_asked_for(source: OnDemandSource, tmp_path: Path) -> None:
    with pytest.raises(StatusError, match="Unrecognized servable version label: stable") as caught:
        version_of(source, label="stable")
    assert caught.value.code is Code.INVALID_ARGUMENT
    for version in (1, 2):
        entry = ModelEntry(versions=(1, 2), labels={"stable": version})
        write_config(tmp_path / CONFIG_FILE, tmp_path, {"m": entry}, {})
        assert version_of(source, label="stable") == version
    assert source.models() == {"m": {"stable": 2}}


def test_failed_version_is_tried_once_and_says_why(
    source: OnDemandSource, loader: FakeLoader
) -> None:
    loader.break_version("m", 2, Code.NOT_FOUND, "no variables")
    for _ in range(2):
        with pytest.raises(StatusError, match="no variables"):
            version_of(source)
    assert loader.loads == [("m", 2)]
    newest, older = source.statuses("m")
    assert (newest.state, newest.error_message) == (State.END, "no variables")
    assert (older.version, older.state) == (1, State.AVAILABLE)
    assert version_of(source, version=1) == 1


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("n", None, r"Latest\(n\)"),
        ("../m", None, "Latest"),
        ("m", 9, r"Specific\(m, 9\)"),
    ],
)
def test_unknown_names_have_the_servers_messages(
    source: OnDemandSource, name: str, version: int | None, message: str
) -> None:
    with pytest.raises(StatusError, match=message) as caught, source.acquire(name, version=version):
        pass
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(StatusError, match="Could not find"):
        source.statuses(name, version=version)


def test_close_waits_for_requests_and_frees_the_versions(
    source: OnDemandSource, loader: FakeLoader
) -> None:
    with source.acquire("m"):
        closing = threading.Thread(target=source.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
    closing.join(10)
    assert loader.servables["m", 2].closed
    source.close()
    with pytest.raises(ValueError, match="closed"):
        version_of(source)
