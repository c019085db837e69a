"""A full disk stops writes, harms nothing, and does not prevent a rollback."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.rollout.apply import ApplyOptions, apply, lock_path
from shortlist.serving.rollout.steps import StepOptions
from tests.unit.serving.rollout.fakes import NAME, make_fleet, publish, write_config

OPTIONS = ApplyOptions(step=StepOptions(timeout=5, poll_interval=0.001, settle=0.02))
LABELLED = (
    "model_version_policy { specific { versions: 1 } } "
    'version_labels { key: "stable" value: 1 } '
    'version_labels { key: "canary" value: 1 } '
    'version_labels { key: "previous" value: 1 }'
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def fill(folder: Path) -> Path:
    """Takes the last byte."""
    file = folder / "ballast"
    with file.open("wb", buffering=0) as stream:
        for size in (4096, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
    return file


def test_a_publication_on_a_full_disk_is_not_visible(small_disk: Path) -> None:
    repository = ModelRepository(small_disk)
    publish(small_disk, 1)

    def publish_too_much() -> None:
        with repository.publisher([NAME]) as publisher:
            staging = publisher.stage(NAME)
            (staging / "saved_model.pb").write_bytes(b"x" * 2**20)
            publisher.publish()

    with pytest.raises(OSError, match="No space left on device"):
        publish_too_much()
    assert repository.versions(NAME) == [1]
    assert not list((small_disk / NAME).glob(".publishing-*"))


def test_a_rollout_stops_before_anything_is_sent(small_disk: Path) -> None:
    publish(small_disk, 1, 2)
    config = write_config(small_disk, LABELLED)
    fleet, servers, _ = make_fleet(small_disk)
    lock_path(fleet).touch()
    before = config.read_text()
    ballast = fill(small_disk)
    with pytest.raises(RolloutError, match="No space left on device"):
        apply(fleet, NAME, "canary", 2, options=OPTIONS)
    assert config.read_text() == before
    assert servers[0].available == {1}
    ballast.unlink()
    apply(fleet, NAME, "canary", 2, options=OPTIONS)
    assert servers[0].labels["canary"] == 2


def test_a_rollback_moves_the_labels_first_and_says_what_is_missing(small_disk: Path) -> None:
    publish(small_disk, 1, 2)
    config = write_config(small_disk, LABELLED)
    fleet, servers, _ = make_fleet(small_disk, replicas=2)
    apply(fleet, NAME, "canary", 2, options=OPTIONS)
    apply(fleet, NAME, "promote", options=OPTIONS)
    before = config.read_text()
    ballast = fill(small_disk)
    with pytest.raises(RolloutError, match=r"cannot write .*: No space left.* Make room"):
        apply(fleet, NAME, "rollback", options=OPTIONS)
    assert [server.labels["stable"] for server in servers] == [1, 1]
    assert config.read_text() == before
    ballast.unlink()
    apply(fleet, NAME, "rollback", options=OPTIONS)
    assert [server.available for server in servers] == [{1}, {1}]
    assert [server.complaints for server in servers] == [[], []]
