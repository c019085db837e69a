"""What a killed publisher leaves behind goes with the next publication; nothing in use does."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shortlist.serving.repository.files import temporary_folder
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.object_store import ObjectStore
from tests.support.paths import ROOT

NAME = "retrieval_ivf"
# Each says that it has begun to publish, then waits to be killed.
STAGES = """
import sys
from pathlib import Path
from shortlist.serving.repository.local import ModelRepository

with ModelRepository(Path(sys.argv[1])).publisher(["retrieval_scann", "killed"]) as publisher:
    for name in publisher.base_paths:
        (publisher.stage(name) / "saved_model.pb").touch()
    print("begun", flush=True)
    sys.stdin.read()
"""
USES_A_FOLDER = """
import sys
from shortlist.serving.repository.files import temporary_folder

with temporary_folder("gate") as folder:
    (folder / "models").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""
UPLOADS = """
import sys
from pathlib import Path
import fsspec
from shortlist.serving.repository.object_store import ObjectStore

store = ObjectStore(sys.argv[1])
system = type(fsspec.filesystem("file"))

def put_file(self, source, target, **options):
    if target.endswith("saved_model.pb"):
        print("begun", flush=True)
        sys.stdin.read()
    original(self, source, target, **options)

original, system.put_file = system.put_file, put_file
store.publish("retrieval_ivf", store.claim("retrieval_ivf"), Path(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)


@contextmanager
def begun(program: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a program and yield it with its first line; kill it at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            assert line
            yield process, line
        finally:
            process.kill()


def killed(program: str, *arguments: str) -> str:
    """Return the first line of a program that was then killed."""
    with begun(program, *arguments) as (process, line):
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        return line


def test_staging_folders_of_all_models_are_removed_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "models"
    killed(STAGES, str(root))
    staged = sorted(root.glob("*/.publishing-*"))
    assert len(staged) == 2
    with caplog.at_level(logging.WARNING), ModelRepository(root).publisher([NAME]):
        assert not list(root.glob("*/.publishing-*"))
    [record] = caplog.records
    assert record.getMessage() == (
        f"removed what a stopped publisher left behind: {staged[0]}, {staged[1]}"
    )


def test_a_temporary_folder_of_a_killed_process_is_removed_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left = Path(killed(USES_A_FOLDER))
    assert (left / "models").is_dir()
    with caplog.at_level(logging.WARNING), temporary_folder("publish") as folder:
        assert folder.is_dir()
        assert not left.exists()
    assert not folder.exists()
    [record] = caplog.records
    assert record.getMessage() == f"removed what a stopped process left behind: {left}"


def test_temporary_folders_in_use_stay(caplog: pytest.LogCaptureFixture) -> None:
    with (
        begun(USES_A_FOLDER) as (_, theirs),
        temporary_folder("gate") as ours,
        temporary_folder("gate"),
    ):
        assert Path(theirs, "models").is_dir()
        assert ours.is_dir()
    assert caplog.records == []


@pytest.mark.parametrize("made_by", ["an earlier release", "others"])
def test_folders_that_were_never_locked_stay(
    tmp_path: Path, made_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp" / "shortlist-gate-abc"
    folder.mkdir()
    if made_by == "others":
        (folder / ".in-use").touch()
        monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with temporary_folder("gate"):
        assert folder.is_dir()


@pytest.fixture
def servable(tmp_path: Path) -> Path:
    folder = tmp_path / "servable"
    (folder / "variables").mkdir(parents=True)
    for file in ("saved_model.pb", "variables/variables.index"):
        (folder / file).touch()
    return folder


def test_an_incomplete_upload_of_a_killed_publisher_is_removed_in_one_line(
    tmp_path: Path, servable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ObjectStore(f"file://{tmp_path}/store")
    killed(UPLOADS, store.url, str(servable))
    upload = tmp_path / "store" / NAME / "1"
    assert (upload / "variables" / "variables.index").exists()
    with caplog.at_level(logging.WARNING):
        assert store.claim(NAME) == 2  # its number is never used again
    assert not upload.exists()
    [record] = caplog.records
    assert record.getMessage() == (
        f"removed what a stopped publisher left behind: {store.url}/{NAME}/1"
    )


def test_an_upload_in_progress_stays(tmp_path: Path, servable: Path) -> None:
    store = ObjectStore(f"file://{tmp_path}/store")
    with begun(UPLOADS, store.url, str(servable)):
        assert store.claim(NAME) == 2
        assert (tmp_path / "store" / NAME / "1" / "variables" / "variables.index").exists()


@pytest.mark.parametrize("claim", ["pid 1 on h (boot x, pid:[1])\n", "pid 999999999 on h\n", ""])
def test_an_upload_from_elsewhere_stays(tmp_path: Path, claim: str) -> None:
    """Only its own machine knows whether that process is alive."""
    store = tmp_path / "store" / NAME
    (store / "1").mkdir(parents=True)
    (store / ".claims").mkdir()
    (store / ".claims" / "1").write_text(claim)
    assert ObjectStore(f"file://{tmp_path}/store").claim(NAME) == 2
    assert (store / "1").is_dir()
