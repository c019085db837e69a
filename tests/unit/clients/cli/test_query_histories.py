"""`shortlist query` with histories and features."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shortlist.clients.cli.main import main
from tests.unit.clients.toys import UNKNOWN, ToyServer, ranking


@pytest.fixture
def run(server: ToyServer, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["query", *arguments, "--address", server.rest_address])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_nobody_is_a_dash(run: Any) -> None:
    status, out, err = run("--history", "c01", "--history", "c03", "-k", "1")
    best, points = next(pair for pair in ranking("c01/c03") if pair[0] not in ("c01", "c03"))
    assert (status, err) == (0, "")
    assert out.splitlines()[1].split() == ["-", "1", best, f"{points:.4f}"]


def test_the_history_of_a_user_can_be_kept(run: Any) -> None:
    _, out, _ = run("42", "--history", "c01", "--keep-history", "-k", "100", "--json")
    (retrieval,) = json.loads(out)
    assert (retrieval["user_id"], retrieval["known_user"]) == ("42", True)
    assert retrieval["known_history"] == 1
    assert "c01" in [pair["candidate_id"] for pair in retrieval["candidates"]]
    assert json.loads(run("--history", "c01", "--json")[1])[0]["user_id"] is None
    assert json.loads(run("42", "--json")[1])[0]["known_history"] is None


def test_features_are_those_of_every_user(run: Any, server: ToyServer) -> None:
    run("42", "7", "--feature", "device=tv", "--feature", "likes=a=b", "--feature", "likes=c")
    assert server.calls[-1].inputs["features"] == [["device=tv", "likes=a=b", "likes=c"]] * 2
    run("--feature", "device=tv")
    assert server.calls[-1].inputs["user_id"] == [""]


def test_notes_say_what_is_unknown(run: Any) -> None:
    alone = "note: user 'unknown-user' is unknown to the model; the candidates follow from history"
    assert run(UNKNOWN, "--history", "c01")[2] == f"{alone} and features alone\n"
    assert run(UNKNOWN, "--feature", "a=b")[2].startswith(alone)
    one = "note: 1 of 2 candidates in the history is unknown to the model\n"
    assert run("42", "--history", "c01", "--history", "nope")[2] == one
    two = run("--history", "no", "--history", "nope")[2].splitlines()
    assert two == [
        "note: without a known user, history or feature, everybody gets the same candidates",
        "note: 2 of 2 candidates in the history are unknown to the model",
    ]


def test_notes_count_unknown_features(run: Any, server: ToyServer) -> None:
    server.models["retrieval_brute_force"].unknown_features = {"colour"}
    manifest = "`features` in the version's manifest has the names and values that it knows\n"
    flags = ("--feature", "device=tv", "--feature", "colour=red")
    one = f"note: 1 of 2 features is unknown to the model; {manifest}"
    assert run("42", *flags)[2] == run(*flags)[2] == one
    assert json.loads(run("42", *flags, "--json")[1])[0]["known_features"] == 1
    _, _, notes = run("--feature", "colour=red", "--feature", "colour=blue")
    assert notes == (
        "note: without a known user, history or feature, everybody gets the same candidates\n"
        f"note: 2 of 2 features are unknown to the model; {manifest}"
    )


LINES = """{"user_id": "42", "history": ["c01", "c02"], "ages": [60, null]}

{"history": ["c03"], "weights": [2], "features": {"device": "tv", "age": 33, "likes": ["a", "b"]}}
{"user_id": "7", "history": null}
"""


@pytest.mark.parametrize("stdin", [False, True])
def test_a_file_holds_many_histories(
    run: Any, server: ToyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdin: bool
) -> None:
    (tmp_path / "histories.jsonl").write_text(f"\ufeff{LINES}".replace("\n", "\r\n"))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(LINES.encode())))
    name = "-" if stdin else str(tmp_path / "histories.jsonl")
    status, out, err = run("--history-file", name, "-k", "1")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["USER", "42", "-", "7"]
    inputs = server.calls[-1].inputs
    assert server.calls[-1].history == [["c01", "c02"], ["c03"], []]
    assert inputs["user_id"] == ["42", "", "7"]
    assert inputs["history_age"] == [[60.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]]
    assert inputs["history_weight"] == [[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]
    assert inputs["features"][1] == ["device=tv", "age=33", "likes=a", "likes=b"]


def test_a_file_of_user_ids_alone_asks_as_before(
    run: Any, server: ToyServer, tmp_path: Path
) -> None:
    (tmp_path / "users.jsonl").write_text('{"user_id": "42"}\n{"user_id": "7"}')
    run("--history-file", str(tmp_path / "users.jsonl"))
    assert server.signatures() == ["serving_default"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "not JSON (Expecting"),
        ('["a"]', 'expected an object such as {"history": ["a"]}'),
        ('{"user": "42"}', "unknown key 'user'; the keys are user_id, history, ages, weights, f"),
        ('{"user_id": 42}', "'user_id' looks like \"42\", got 42"),
        ('{"history": "a"}', '\'history\' looks like ["a", "b"], got "a"'),
        ('{"history": [1]}', "history takes strings, got 1; in JSON, strings have quotes"),
        ('{"history": [""]}', "history takes candidate ids, got ''; leave it out"),
        ('{"ages": [1]}', "ages needs history; pass the events"),
        ('{"history": ["a"], "ages": ["1"]}', "ages[0] must be a number, got '1'; in JSON"),
        (
            '{"history": ["a"], "ages": [1, 2]}',
            "ages has 2 numbers for the 1 events of history; give one for each event, null for",
        ),
        ('{"history": ["a"], "weights": [0]}', "weights[0] must be in 1e-06 to 1e+06, got 0"),
        ('{"features": [1]}', '\'features\' looks like {"device": "mobile"}, got [1]'),
        ('{"features": {"a=b": 1}}', "a feature's name in features must be without '=', got"),
    ],
)
def test_a_wrong_line_is_named(run: Any, tmp_path: Path, line: str, text: str) -> None:
    path = tmp_path / "histories.jsonl"
    path.write_text(f'{{"user_id": "42"}}\n\n{line}\n')
    status, out, err = run("--history-file", str(path))
    assert (status, out) == (1, "")
    assert err.startswith(f"shortlist: error: --history-file {path}, line 3: {text}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "name a user, or give --history, --feature or --history-file"),
        (["1", "2", "--history", "a"], "--history is the history of one user, got 2 users; use"),
        (
            ["--history", "a", "--history", ""],
            "--history takes a candidate id, got ''; leave it out",
        ),
        (["--feature", "tv"], "--feature takes NAME=VALUE, got 'tv'"),
        (["42", "--history-file", "-"], "--history-file names users, histories and features"),
        (["--history-file", "/nowhere"], "--history-file /nowhere: No such file"),
        (["--history-file", "/dev/null"], "--history-file /dev/null: no lines; write a JSON obj"),
        (["--history-file", __file__], "test_query_histories.py, line 1: not JSON"),
    ],
)
def test_wrong_options_are_one_line(run: Any, arguments: list[str], text: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("shortlist: error: ")
    assert text in err
    assert err.count("\n") == 1


def test_an_older_version_is_named(run: Any, server: ToyServer) -> None:
    del server.models["retrieval_brute_force"].signatures["retrieve_by_query"]
    _, _, err = run("--history", "c01")
    assert "this version takes no history" in err
    assert "; it has: echo, embed, " in err
