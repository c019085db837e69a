"""The script that copies a repository from an object store, here a folder."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "docker/kubernetes/variants/object-store/sync.sh"
RCLONE = """#!/bin/sh
# The part of rclone that the script uses; the remote `models:x` is the folder $STORE/x.
place() { echo "$STORE/${1#models:}"; }
case "$1 $2" in
    "lsf --dirs-only") cd "$(place "$3")" 2>/dev/null || exit 3
        find . -mindepth 1 -maxdepth 1 -type d -printf '%f/\\n' ;;
    "lsf --files-only") cd "$(place "$5")" && [ ! -e saved_model.pb ] || echo saved_model.pb ;;
    copy*) [ ! -e "$STORE/fail" ] || exit 4
        mkdir -p "$3" && cp -r "$(place "$2")/." "$3" ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    rclone = tmp_path / "bin/rclone"
    rclone.parent.mkdir()
    rclone.write_text(RCLONE)
    rclone.chmod(0o755)
    return folder


def publish(store: Path, version: str, *, complete: bool = True) -> None:
    folder = store / "m" / version
    (folder / "variables").mkdir(parents=True)
    (folder / "variables/variables.index").write_text(version)
    if complete:
        (folder / "saved_model.pb").write_text(version)


def sync(store: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{store.parent / 'bin'}:{os.environ['PATH']}",
        "STORE": str(store),
        "SYNC_LOCAL": str(store.parent / "models"),
    }
    return subprocess.run(
        ["sh", str(SCRIPT), "--once"], env=environment, capture_output=True, text=True, check=False
    )


def here(store: Path) -> list[str]:
    return sorted(path.name for path in (store.parent / "models/m").iterdir())


def test_whole_versions_come_and_those_gone_from_the_store_go(store: Path) -> None:
    publish(store, "1")
    publish(store, "2")
    assert sync(store).returncode == 0
    assert here(store) == ["1", "2"]
    assert (store.parent / "models/m/2/variables/variables.index").read_text() == "2"
    (store / "m/1").rename(store / "m/.trash")
    publish(store, "3")
    assert sync(store).returncode == 0
    assert here(store) == ["2", "3"]


def test_a_version_without_its_graph_is_still_being_written(store: Path) -> None:
    """`saved_model.pb` is published last; the server would load the half that is there."""
    publish(store, "1")
    publish(store, "2", complete=False)
    assert sync(store).returncode == 0
    assert here(store) == ["1"]


def test_a_copy_that_fails_leaves_nothing_a_server_would_take(store: Path) -> None:
    publish(store, "1")
    (store / "fail").touch()
    assert sync(store).returncode == 1
    assert not [name for name in here(store) if name.isdigit()]
    (store / "fail").unlink()
    assert sync(store).returncode == 0
    assert here(store) == ["1"]


def test_an_empty_listing_removes_nothing(store: Path) -> None:
    """It more likely means a faulty store than the end of a model."""
    publish(store, "1")
    assert sync(store).returncode == 0
    (store / "m/1").rename(store / "aside")
    done = sync(store)
    assert done.returncode == 1
    assert "nothing removed" in done.stderr
    assert "1" in here(store)
