"""`shortlist completion` and `shortlist --version`."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shortlist.clients.cli import versions
from shortlist.clients.cli.main import main
from tests.support.packages import versions as installed


def completed(script: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    program = (
        f"source '{script}'; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        "_shtab_shortlist; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.split()


def test_bash_completes_verbs_options_values_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "shortlist"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "plays.csv").touch()
    (tmp_path / "plays").mkdir()
    assert completed(script, "shortlist", "ro") == ["rollback", "rollout"]
    assert completed(script, "shortlist", "rollout", "l") == ["log", "lint"]
    assert completed(script, "shortlist", "export", "--spl") == ["--split"]
    assert "global_time" in completed(script, "shortlist", "export", "--split", "")
    assert set(completed(script, "shortlist", "export", "--data", "pl")) == {"plays", "plays.csv"}
    assert completed(script, "shortlist", "serve", "--repository", "pl") == ["plays"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_scripts_are_valid(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    subprocess.run([program, "-n"], input=script, text=True, timeout=30, check=True)


def test_version_names_what_is_installed_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = installed(shortlist="0.2.0", tensorflow_cpu="2.21.0", grpcio="1.80.0")
    monkeypatch.setattr(versions, "version", found)
    assert main(["--version"]) == 0
    first, python, *others = capsys.readouterr().out.splitlines()
    assert (first, others) == ("shortlist 0.2.0", ["grpcio 1.80.0", "tensorflow-cpu 2.21.0"])
    assert re.fullmatch(r"Python 3\.\d+\.\d+\S*", python)
