import json
from typing import Any

import pytest

from clients.cli import main
from tests.clients.fake_server import CANDIDATES, STRANGER, FakeServer, ranking


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(transport: str, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(verb: str, *arguments: str) -> tuple[int, str, str]:
        address = server.address(transport)
        status = main([verb, *arguments, "--transport", transport, "--address", address])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_query_prints_a_table(run: Any) -> None:
    status, out, err = run("query", "42", "7", "-k", "2")
    best, second = ranking("42")[:2]
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].split() == ["USER", "RANK", "CANDIDATE", "SCORE"]
    assert lines[1].split() == ["42", "1", best[0], f"{best[1]:.4f}"]
    assert lines[2].split() == ["42", "2", second[0], f"{second[1]:.4f}"]
    assert len(lines) == 5


def test_query_prints_json(run: Any) -> None:
    status, out, _ = run("query", "42", "-k", "3", "--json", "--label", "stable")
    (found,) = json.loads(out)
    assert status == 0
    assert (found["user_id"], found["version"], found["known_user"]) == ("42", 1, True)
    assert [(one["candidate_id"], one["score"]) for one in found["candidates"]] == ranking("42")[:3]


def test_query_excludes_and_filters(run: Any) -> None:
    best = next(name for name, _ in ranking("42") if CANDIDATES.index(name) in (6, 8, 10))
    options = ["--filter-any", "genre=even", "--filter-min", "year=1995"]
    options += ["--filter-max", "year=2000", "--exclude", best, "--exclude-seen", "--json"]
    _, out, _ = run("query", "42", *options)
    left = {one["candidate_id"] for one in json.loads(out)[0]["candidates"]}
    assert left == {CANDIDATES[i] for i in (6, 8, 10)} - {best}


def test_query_says_when_the_user_is_unknown(run: Any) -> None:
    status, _, err = run("query", STRANGER)
    assert status == 0
    assert "user 'stranger' is not in the training data" in err


def test_status_lists_the_servables_of_the_model(run: Any) -> None:
    status, out, _ = run("status")
    rows = [line.split() for line in out.splitlines()]
    assert status == 0
    assert rows == [
        ["SERVABLE", "VERSION", "STATE", "ERROR"],
        ["retrieval_brute_force", "2", "AVAILABLE"],
        ["retrieval_brute_force", "1", "AVAILABLE"],
        ["retrieval_ivf", "2", "AVAILABLE"],
        ["retrieval_ivf", "1", "AVAILABLE"],
    ]


def test_status_prints_json_and_waits(run: Any) -> None:
    status, out, _ = run("status", "--index", "ivf", "--wait", "5", "--version", "1", "--json")
    assert status == 0
    assert json.loads(out)[0]["versions"][0]["state"] == "AVAILABLE"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["query", "42", "--index", "scann"], "no servable 'retrieval_scann'"),
        (["query", "42", "--label", "nightly"], "label 'nightly'"),
        (["query", "42", "-k", "0"], "k must be"),
        (["query", "42", "--filter-any", "genre"], "--filter-any takes NAME=VALUE"),
        (["query", "42", "--filter-min", "year=old"], "--filter-min takes NAME=NUMBER"),
        (["query", "42", "--ca", "/nowhere.pem"], "no file '/nowhere.pem'"),
        (["status", "--servable", "nope"], "no servable 'nope'"),
        (["status", "--wait", "1"], "--wait needs one servable"),
    ],
)
def test_an_expected_failure_is_one_line_and_exit_status_1(
    run: Any, arguments: list[str], text: str
) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert err.startswith("shortlist: error: ")
    assert text in err
    assert err.count("\n") == 1


def test_no_server_is_one_line_too(transport: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "42", "--transport", transport, "--address", "127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert "no answer from" in err
    assert "shortlist serve" in err
    assert err.count("\n") == 1
