"""The proxy's key and tokens: for the proxy's user only, outside of git."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FILES = ("cert.pem", "key.pem", "tokens.map")


def make(folder: Path, **environment: str) -> str:
    done = subprocess.run(
        ["bash", str(ROOT / "docker/proxy/make_credentials.sh"), str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return done.stderr


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE((folder / name).stat().st_mode) for name in FILES}


def test_only_the_proxys_user_can_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    make(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {0o600}
    owner = 65532 if os.getuid() == 0 else os.getuid()  # the user of the proxy's container
    assert {folder.stat().st_uid, *((folder / name).stat().st_uid for name in FILES)} == {owner}


def test_those_of_an_earlier_release_are_closed_and_their_tokens_named(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    make(folder)
    (folder / "tokens.map").write_text('"Bearer old" 1;\n')
    folder.chmod(0o711)
    for name in FILES:
        (folder / name).chmod(0o644)
    certificate = (folder / "cert.pem").read_bytes()
    assert "compares without case; write its line as" in make(folder)
    assert (folder / "cert.pem").read_bytes() == certificate
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes(folder) == {0o600}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_links_keep_the_modes_and_owners_of_their_targets(tmp_path: Path) -> None:
    folder, others = tmp_path / "credentials", tmp_path / "live"
    make(others, SHORTLIST_PROXY_USER="7:8")
    assert others.stat().st_uid == 7
    (others / "key.pem").chmod(0o640)
    folder.mkdir()
    for name in FILES:
        (folder / name).symlink_to(others / name)
    assert make(folder) == ""
    status = (others / "key.pem").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (7, 0o640)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this copy is not a git repository")
def test_git_does_not_see_them() -> None:
    path = "docker/proxy/credentials/key.pem"
    done = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False)
    assert done.returncode == 0
