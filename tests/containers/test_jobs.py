"""The scripts of scheduled jobs."""

import os
import subprocess
from pathlib import Path

from tests.support.paths import ROOT


def test_an_update_reads_the_files_that_there_are(tmp_path: Path) -> None:
    program = tmp_path / "bin/shortlist"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    program.chmod(0o755)
    changes = tmp_path / "some changes"
    changes.mkdir()

    def run() -> tuple[int, list[str]]:
        done = subprocess.run(
            ["sh", ROOT / "docker/jobs/update.sh", "models/shop_ivf", changes, "--from", "stable"],
            env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.splitlines()

    assert run() == (0, [])
    for name in ("new.csv", "withdrawn.txt"):
        (changes / name).write_text("candidate_id\n1\n")
    (changes / "stock.csv").touch()
    assert run() == (
        7,
        [
            *("update", "models/shop_ivf", "--from", "stable"),
            *("--candidates", f"{changes}/new.csv", "--remove", f"{changes}/withdrawn.txt"),
        ],
    )
