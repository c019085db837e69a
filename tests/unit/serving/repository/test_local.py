"""Publishing: versions that the poller can see are complete, whatever happened."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shortlist.clients import contract
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.version import Manifest
from tests.support.paths import ROOT

NAMES = ["retrieval_brute_force", "retrieval_ivf"]

# Publishes once, and kills itself with SIGKILL at the n-th file-system call that it makes.
PUBLISHER = """
import os, shutil, signal, sys, tempfile
from pathlib import Path
from shortlist.serving.repository.local import ModelRepository

kill_at = int(sys.argv[2])
calls = 0

def counted(function):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper

for name in "rename replace fsync open mkdir chmod unlink rmdir ftruncate".split():
    setattr(os, name, counted(getattr(os, name)))

names = ["retrieval_brute_force", "retrieval_ivf"]
with ModelRepository(Path(sys.argv[1])).publisher(names) as publisher:
    for name in names:
        staging = publisher.stage(name)
        (staging / "variables").mkdir()
        for file in ("saved_model.pb", "variables/variables.index", "variables/data"):
            (staging / file).write_text(f"{publisher.version}")
    publisher.publish()
print("calls", calls)
"""


def publish(repository: ModelRepository, names: list[str] = NAMES) -> int:
    with repository.publisher(names) as publisher:
        for name in names:
            write_servable(publisher.stage(name), publisher.version)
        publisher.publish()
    return publisher.version


def write_servable(folder: Path, version: int) -> None:
    (folder / "variables").mkdir()
    for file in ("saved_model.pb", "variables/variables.index", "variables/data"):
        (folder / file).write_text(str(version))


def assert_versions_are_whole(repository: ModelRepository) -> None:
    for name in repository.models():
        for version in repository.versions(name):
            path = repository.version_path(name, version)
            for file in ("saved_model.pb", "variables/variables.index", "variables/data"):
                assert (path / file).read_text() == str(version)


def test_one_publication_gives_all_its_servables_the_same_version(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models")
    assert publish(repository) == 1
    assert publish(repository) == 2
    assert repository.models() == NAMES
    assert [repository.versions(name) for name in NAMES] == [[1, 2], [1, 2]]


def test_a_servable_that_joins_later_gets_the_number_of_the_others(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    publish(repository, ["retrieval_brute_force"])
    publish(repository, ["retrieval_brute_force"])
    assert publish(repository) == 3
    assert repository.versions("retrieval_ivf") == [3]


def test_a_number_is_never_reused_after_its_version_was_deleted(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    publish(repository)
    for name in NAMES:
        path = repository.version_path(name, 1)
        path.rename(tmp_path / f"{name}-gone")
    assert publish(repository) == 2


def test_numbers_continue_above_zero_padded_and_foreign_versions(tmp_path: Path) -> None:
    (tmp_path / "retrieval_ivf" / "00041").mkdir(parents=True)
    assert publish(ModelRepository(tmp_path)) == 42


@pytest.mark.parametrize("top", [str(2**63 - 1), f"00{2**63 - 1}"])
def test_above_the_highest_version_nothing_is_published(tmp_path: Path, top: str) -> None:
    """No server would read 2^63."""
    folder = tmp_path / "retrieval_ivf" / top
    folder.mkdir(parents=True)
    repository = ModelRepository(tmp_path)
    message = rf"{folder} has the highest version number .*; delete or rename that folder"
    with pytest.raises(RepositoryError, match=message), repository.publisher(NAMES):
        pass
    folder.rename(folder.with_name("aside"))
    assert publish(repository) == 1


def test_a_parent_with_a_number_that_is_too_high_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(RepositoryError, match=f"no version number is left above {2**63 - 1}"),
        ModelRepository(tmp_path).publisher(NAMES, at_least=2**63),
    ):
        pass


@pytest.mark.parametrize("name", [str(2**63), "9" * 20, "9" * 200])
def test_a_folder_that_no_server_takes_for_a_version_does_not_count(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "retrieval_ivf" / name).mkdir(parents=True)
    repository = ModelRepository(tmp_path)
    assert repository.models() == []
    assert publish(repository) == 1


@pytest.mark.parametrize(("folder", "version"), [("007", 7), ("+7", 7), (" 7", 7), ("-7", -7)])
def test_an_unusual_name_of_a_version_is_found(tmp_path: Path, folder: str, version: int) -> None:
    path = tmp_path / "foreign" / folder
    path.mkdir(parents=True)
    repository = ModelRepository(tmp_path)
    assert repository.versions("foreign") == [version]
    assert repository.version_path("foreign", version) == path
    (tmp_path / "foreign" / "7").mkdir()
    assert repository.version_path("foreign", 7).name == "7"


def test_leaving_without_publishing_removes_files_and_uses_up_the_number(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    with repository.publisher(NAMES) as publisher:
        write_servable(publisher.stage(NAMES[0]), publisher.version)

    def fail_at_a_gate() -> None:
        with repository.publisher(NAMES) as publisher:
            write_servable(publisher.stage(NAMES[0]), publisher.version)
            raise RuntimeError("gate")

    with pytest.raises(RuntimeError, match="gate"):
        fail_at_a_gate()
    assert repository.models() == []
    assert not list(tmp_path.glob("*/.publishing-*"))
    assert publish(repository) == 3


def test_a_folder_without_saved_model_is_refused(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    with repository.publisher(["retrieval_ivf"]) as publisher:
        publisher.stage("retrieval_ivf")
        with pytest.raises(RepositoryError, match=r"'retrieval_ivf' has no saved_model\.pb"):
            publisher.publish()
    assert repository.versions("retrieval_ivf") == []


def test_published_files_can_be_read_by_every_user(tmp_path: Path) -> None:
    """A container runs as another user; mkdtemp and a strict umask make private files."""
    repository = ModelRepository(tmp_path)
    umask = os.umask(0o077)
    try:
        publish(repository)
    finally:
        os.umask(umask)
    version = repository.version_path(NAMES[0], 1)
    assert stat.S_IMODE(version.stat().st_mode) == 0o755
    for path in version.rglob("*"):
        readable = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & readable == readable


def test_a_second_publisher_waits_then_says_who_holds_the_lock(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    with (
        repository.publisher(NAMES),
        pytest.raises(RepositoryError, match=rf"locked by another publisher \(pid {os.getpid()} "),
        repository.publisher(NAMES, lock_timeout=0.2),
    ):
        pass


def test_concurrent_publishers_get_different_numbers(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    threads = [threading.Thread(target=publish, args=(repository,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert repository.versions(NAMES[0]) == list(range(1, 9))
    assert_versions_are_whole(repository)


def test_manifest_is_returned_and_a_broken_one_named(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    publish(repository)
    assert repository.manifest(NAMES[0], 1) is None
    path = repository.version_path(NAMES[0], 1) / contract.MANIFEST_FILE
    path.parent.mkdir()
    path.write_text(json.dumps({"ops": ["MatMul"]}))
    assert repository.manifest(NAMES[0], 1) == Manifest(ops=("MatMul",))
    path.write_text("{")
    with pytest.raises(RepositoryError, match=r"shortlist_manifest\.json is not valid JSON"):
        repository.manifest(NAMES[0], 1)


def test_missing_version_lists_those_that_exist(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    publish(repository)
    with pytest.raises(RepositoryError, match=r"no version 9 of 'retrieval_ivf'.*there: 1"):
        repository.version_path("retrieval_ivf", 9)


def run_publisher(root: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PUBLISHER, str(root), str(kill_at)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_publisher_killed_at_any_step_leaves_only_complete_versions(tmp_path: Path) -> None:
    """Kills a publisher with SIGKILL at each of its file-system calls in turn."""
    repository = ModelRepository(tmp_path)
    finished = 0
    for kill_at in range(1, 1000):
        done = run_publisher(tmp_path, kill_at)
        assert_versions_are_whole(repository)
        if done.returncode == 0:
            finished = kill_at
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert finished > 20  # it was really killed at that many different places
    newest = repository.versions(NAMES[0])[-1]
    assert repository.versions(NAMES[1])[-1] == newest
    assert not list(tmp_path.glob("*/.publishing-*"))  # the next publisher cleans up
    assert not list(tmp_path.glob("*/.last_version.*"))
    assert publish(repository) == newest + 1


def test_servables_appear_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a sharded model, some shards alone would be of no use."""
    real, repository = os.rename, ModelRepository(tmp_path)

    def fails_for_the_last(source: Path, target: Path) -> None:
        if Path(target).parent.name == NAMES[-1]:
            raise OSError(28, "No space left on device")
        real(source, target)

    with repository.publisher(NAMES) as publisher:
        for name in NAMES:
            (publisher.stage(name) / "saved_model.pb").write_text("graph")
        monkeypatch.setattr("os.rename", fails_for_the_last)
        with pytest.raises(RepositoryError, match="No space left"):
            publisher.publish()
    assert repository.models() == []
