"""`make release`, up to the point at which it builds."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def check(root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [str(root / ".ci/release"), "check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_version_changelog_images_and_tag_have_to_agree(tmp_path: Path) -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    root = tmp_path / "tree"
    for folder in (".ci", "docker"):
        shutil.copytree(ROOT / folder, root / folder)
    for name in ("CHANGELOG.md", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    changes = root / "CHANGELOG.md"  # whose newest part may not have its version yet
    released = f"## [{version[1]}] - 2026-01-02"
    changes.write_text(re.sub(r"^## .*$", released, changes.read_text(), count=1, flags=re.M))
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(sys.executable)
    git = ["git", "-C", str(root), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (
        ["init", "--quiet"],
        ["commit", "--quiet", "--allow-empty", "--message=a"],
        ["tag", f"v{version[1]}"],
    ):
        subprocess.run([*git, *arguments], check=True, timeout=60)
    status, said = check(root)
    assert status == 0, said
    assert f"version {version[1]}, its changelog and images agree" in said
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=b"], check=True)
    status, said = check(root)
    assert status == 1
    assert "exists and names another commit; raise the version" in said
    project = root / "pyproject.toml"
    project.write_text(project.read_text().replace(f'"{version[1]}"', '"9.8.7"', 1))
    status, said = check(root)
    assert status == 1
    assert "pyproject.toml has version 9.8.7, but CHANGELOG.md begins with" in said
