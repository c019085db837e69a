"""`shortlist monitor` on a terminal, for machines and as a process."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main
from tests.unit.export.monitor.logs import START, Shown, write_events, write_log


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_log(
        tmp_path / "logs",
        [Shown(time=START), Shown(time=START, user="u2", version=2, label="canary", known=False)],
    )
    write_events(tmp_path / "events.csv", [("u1", "a", START + 1), ("u2", "z", START + 2)])
    (tmp_path / "short").write_text("secret")
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGUMENTS = ["monitor", "--log", "logs", "--interactions", "events.csv", "--window", "1m"]


def test_tables_have_a_row_for_each_version_and_segment(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ARGUMENTS) == 0
    out, err = capsys.readouterr()
    quality, queries, note = out.strip().split("\n\n")
    rows = [line.split() for line in quality.splitlines()]
    assert rows[0][:7] == ["model", "version", "label", "segment", "lists", "users", "interactions"]
    all_, known = rows[1], rows[2]
    assert all_ == [
        *("retrieval_ivf", "1", "stable", "all", "1", "1", "1"),
        *("100.0%", "-", "50.00%", "-", "-"),
    ]
    assert known[0] == "known"
    assert rows[3][1:4] == ["2", "canary", "all"]
    assert "too few lists" in queries
    assert note.startswith("not in the repository models, so that age and coverage are unknown")
    assert err == ""


def test_files_are_written_and_json_is_printed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--output", "m.json", "--metrics", "m.prom", "--page", "m.html"]
    assert main([*ARGUMENTS, *files, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((folder / "m.json").read_text())
    assert [each["figures"]["hit_rate"] for each in printed["served"]] == [1.0, 0.0]
    assert printed["served"][0]["segments"]["known"]["lists"] == 1
    assert 'hit_rate{model="retrieval_ivf",version="1",' in (folder / "m.prom").read_text()
    assert (folder / "m.html").read_text().startswith("<!doctype html>")
    assert (folder / "m.prom").stat().st_mode & 0o044 == 0o044  # other users can read it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--log", "none"], "no request log at none"),
        (["--log", "logs", "--interactions", "none.csv"], "none.csv"),
        (["--log", "logs", "--users", "u.csv"], "--users and --segment-column belong together"),
        (["--log", "logs", "--page", "none/m.html"], "--page must name a file in an existing"),
        (["--log", "logs", "-k", "0"], "k must be at least 1, got 0"),
        (["--log", "logs", "--user-id-key", "key"], "cannot read the key file key: No such"),
        (["--log", "logs", "--user-id-key", "short"], "key must be 16 to 64 random bytes"),
    ],
)
def test_wrong_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["monitor", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("shortlist: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_rounds_go_on_after_a_failure_and_sigterm_ends_them(folder: Path) -> None:
    """The first round finds no interactions yet; the next one does."""
    (folder / "events.csv").rename(folder / "later.csv")
    command = [sys.executable, "-m", "shortlist", *ARGUMENTS, "--every", "0.2s"]
    with (folder / "err").open("w") as err, (folder / "out").open("w") as out:
        process = subprocess.Popen([*command, "--metrics", "m.prom"], stdout=out, stderr=err)
        try:
            wait_for(folder / "err", "the next round begins in", process)
            assert not (folder / "m.prom").exists()
            (folder / "later.csv").rename(folder / "events.csv")
            wait_for(folder / "out", "100.0%", process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            process.wait()
    lines = (folder / "err").read_text().splitlines()
    assert lines[-1] == "stopped"
    assert all("error: " in line for line in lines[:-1])
    assert "shortlist_monitor_interval_seconds 0.2" in (folder / "m.prom").read_text()


def wait_for(path: Path, text: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while text not in path.read_text():
        assert process.poll() is None, path.read_text()
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)
