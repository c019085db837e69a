"""`shortlist inspect` on a terminal and for machines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shortlist.clients.cli.main import main


@pytest.fixture
def plays(tmp_path: Path) -> Path:
    file = tmp_path / "plays.csv"
    rows = [
        f"{user},{(user * place) % 17},{1_700_000_000 + 60 * place}"
        for user in range(110)
        for place in range(5)
    ]
    file.write_text("\n".join(["listener,track_id,time", *rows]) + "\n")
    return file


def test_text_names_columns_counts_split_and_command(
    plays: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(plays), "--user-column", "listener"]) == 0
    text = capsys.readouterr().out
    assert "550 interactions of 110 users with 17 candidates" in text
    assert "split leave_last_out (times order the interactions of 110 users)" in text
    command = text.splitlines()[-1]
    assert f"export --data {plays} --user-column listener" in command


def test_faulty_data_is_shown_and_the_status_is_1(
    plays: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(plays)]) == 1
    out, err = capsys.readouterr()
    assert "listener" in out  # the columns, to choose from
    assert "name it with --user-column" in err
    with plays.open("a") as stream:
        stream.write("7,,1700000000\n")
    assert main(["inspect", str(plays), "--user-column", "listener"]) == 1
    out, err = capsys.readouterr()
    assert "550 interactions of 110 users with 17 candidates, without 1 faulty rows" in out
    assert "train with" not in out
    assert "line 552, column 'track_id' is empty" in err


def test_json_holds_everything(plays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(plays), "--user-column", "listener", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["users"] == 110
    assert found["split"]["method"] == "leave_last_out"
    assert found["files"][0]["columns"][0]["role"] == "users"
    assert found["problem"] is None


def test_page_is_written(plays: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["inspect", str(plays), "--user-column", "listener", "--output", str(page)]) == 0
    assert "Activity of users" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "nothing to inspect"), (["--output", "/nowhere/x.html"], "existing folder")],
)
def test_wrong_options_are_named(
    words: list[str], message: str, plays: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *words, *([str(plays)] if words else [])]) == 1
    assert message in capsys.readouterr().err


def test_configuration_file_names_the_data(
    plays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'[data]\nsource = "{plays}"\nuser_column = "listener"\n[train]\nsplit = "new_users"\n'
    )
    assert main(["inspect", "--config", str(config)]) == 0
    text = capsys.readouterr().out
    assert "split new_users: " in text
    command = text.splitlines()[-1]
    assert command.startswith("train with: ")
    assert command.endswith(f" export --config {config}")
    words = ["--data", str(plays), "--timestamp-column", "time", "--candidate-column", "track_id"]
    assert main(["inspect", "--config", str(config), *words]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.endswith(
        f"export --config {config} --candidate-column track_id --timestamp-column time"
    )


def test_tensorflow_is_not_imported(plays: Path) -> None:
    code = (
        "import sys; from shortlist.clients.cli.main import main; "
        f"main(['inspect', {str(plays)!r}, '--user-column', 'listener', '--output', "
        f"{str(plays.with_suffix('.html'))!r}]); sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
