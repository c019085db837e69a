"""A day of requests: the commands of docs/story.md, as written.

Only the data and the training (smaller), the requests (fewer), the addresses (free ports) and
`serve` (as a context) differ.
"""

import csv
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shortlist.clients.cli.main import build_parser, main
from shortlist.clients.request_log.reading import read_log
from shortlist.serving.servers.serve import ServeRequest, running
from tests.support.pages import blocks, commands
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = ROOT / "docs" / "story.md"
QUICK = ["--epochs", "1", "--embedding-dim", "8", "--seen-last-epochs", "0", "--split", "random"]
MODEL = "retrieval_brute_force"
USERS, MOVIES = 40, 150


def words_of_commands() -> Iterator[list[str]]:
    """Yield the commands of the page with the quickest index."""
    for block in blocks(PAGE, "console"):
        for command in commands(block.text.replace("ivf", "brute_force")):
            yield command.words


def script() -> ModuleType:
    path = ROOT / "examples" / "day_of_requests.py"
    spec = importlib.util.spec_from_file_location("day_of_requests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def movielens() -> tuple[list[tuple[str, str, int]], dict[str, str]]:
    """Return ratings of some users and the titles of some movies of the release."""
    folder = Path(os.environ.get("SHORTLIST_MOVIELENS", ROOT.parent / "shared" / "data"))
    archive = folder / "ml-latest-small.zip"
    if not archive.exists():
        return synthetic()
    with zipfile.ZipFile(archive) as release:
        files = {
            name: list(
                csv.DictReader(release.read(f"ml-latest-small/{name}.csv").decode().splitlines())
            )
            for name in ("ratings", "movies")
        }
    ratings = [(row["userId"], row["movieId"], int(row["timestamp"])) for row in files["ratings"]]
    start = datetime(2016, 1, 1, tzinfo=UTC).timestamp()
    late = Counter(user for user, _, time in ratings if start <= time)
    early = Counter(user for user, _, time in ratings if time < start)
    users = {user for counts in (late, early) for user, _ in counts.most_common(USERS)}
    movies = {movie for movie, _ in Counter(movie for _, movie, _ in ratings).most_common(MOVIES)}
    titles = {row["movieId"]: row["title"] for row in files["movies"] if row["movieId"] in movies}
    return [each for each in ratings if each[0] in users and each[1] in movies], titles


def synthetic() -> tuple[list[tuple[str, str, int]], dict[str, str]]:
    """Return ratings like those of the release: users with a taste, some of them late."""
    ratings = []
    for user in range(2 * USERS):
        year = 2016 + user % 2 if user < USERS else 2008 + user % 8
        start = int(datetime(year, 3, 1, tzinfo=UTC).timestamp())
        for step in range(25):
            movie = (user % 5 + 5 * (step * step + 7 * user)) % MOVIES
            ratings.append((str(user), str(movie), start + 86_400 * step))
    return ratings, {str(movie): f"Movie, the {movie}th (1999)" for movie in range(MOVIES)}


def write_release(folder: Path) -> None:
    ratings, titles = movielens()
    folder.mkdir()
    with (folder / "ratings.csv").open("w", newline="") as stream:
        rows = ((user, movie, 4.0, time) for user, movie, time in ratings)
        csv.writer(stream).writerows([("userId", "movieId", "rating", "timestamp"), *rows])
    with (folder / "movies.csv").open("w", newline="") as stream:
        named = ((movie, title, "Drama") for movie, title in titles.items())
        csv.writer(stream).writerows([("movieId", "title", "genres"), *named])


def run_alone(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shortlist", *words],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Story:
    """Runs the commands of the page.

    Attributes:
        played: Requests of each day.
        monitored: What the last command printed, as JSON.
    """

    def __init__(self, stack: ExitStack, capsys: pytest.CaptureFixture[str]) -> None:
        self._stack = stack
        self._capsys = capsys
        self._script = script()
        self._address = ""
        self.played: list[int] = []
        self.monitored: dict[str, Any] = {}

    def run(self, program: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        if program == "python":
            if words[1] == "play":
                words += ["--address", self._address, "--model", MODEL, "--most", "2"]
            monkeypatch.setattr("sys.argv", words)
            self._script.main()
            out = self._capsys.readouterr().out
            if words[1] == "play":
                self.played.append(int(out.split()[1].replace(",", "")))
        elif words[0] == "serve":
            args = build_parser().parse_args(words)
            request = ServeRequest(repository=args.repository, request_log=args.request_log)
            server, _ = self._stack.enter_context(running(request))
            self._address = server.grpc_address
        else:
            self._shortlist(words)

    def _shortlist(self, words: list[str]) -> None:
        verb = words[0]
        if verb == "export":
            # Its gate starts a server with a function before exec, and gRPC, which runs here, does
            # not bear a fork.
            run_alone([*words, *QUICK])
            return
        words += ["--address", self._address] if verb in ("canary", "promote") else []
        words += ["--json"] if verb in ("monitor", "replay") else []
        # Two versions that hardly learned anything may differ by more than the limits.
        assert main(words) in ((0, 1) if verb == "replay" else (0,)), words
        out, err = self._capsys.readouterr()
        assert "error: " not in err
        if verb == "replay":
            assert {f"{MODEL}/1", f"{MODEL}/2"} <= {*_texts(out)}
        if verb == "monitor":
            self.monitored = json.loads(out)


def test_a_day_of_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_release(tmp_path / "ml-latest-small")
    with ExitStack() as stack:
        story = Story(stack, capsys)
        for program, *words in words_of_commands():
            story.run(program, words, monkeypatch)
    assert len(story.played) == 2
    served = {(each["version"], each["label"]): each for each in story.monitored["served"]}
    days = [served[version, "stable"] for version in (1, 2)]
    assert [day["figures"]["lists"] for day in days] == story.played
    events = Path("story/events.csv").read_text().splitlines()[1:]
    assert sum(day["figures"]["interactions"] for day in days) == len(events)
    for day in days:
        assert 0 < day["figures"]["hit_rate"] < 1
        assert 0 < day["figures"]["coverage"] <= 1
        assert day["age"] > 0
    logged = [each for each in read_log("story/log") if each.label == "stable"]
    assert len(logged) == sum(story.played)
    assert {each.version for each in logged} == {1, 2}
    assert f"{MODEL}/2 stable" in Path("story/monitor.html").read_text()


def _texts(document: str) -> list[str]:
    """Return all strings in a JSON document."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            for part in (*value, *value.values()):
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(json.loads(document))
    return found
