import json
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients.cli.main import main
from tests.unit.clients.toys import CANDIDATES, UNKNOWN, ToyServer, ranking


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(transport: str, server: ToyServer, capsys: pytest.CaptureFixture[str]) -> Any:
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
    (retrieval,) = json.loads(out)
    assert status == 0
    assert (retrieval["user_id"], retrieval["version"], retrieval["known_user"]) == ("42", 1, True)
    assert [(pair["candidate_id"], pair["score"]) for pair in retrieval["candidates"]] == ranking(
        "42"
    )[:3]


def test_query_excludes_and_filters(run: Any) -> None:
    best = next(name for name, _ in ranking("42") if CANDIDATES.index(name) in (6, 8, 10))
    options = ["--filter-any", "genre=even", "--filter-min", "year=1995"]
    options += ["--filter-max", "year=2000", "--exclude", best, "--exclude-seen", "--json"]
    _, out, _ = run("query", "42", *options)
    left = {pair["candidate_id"] for pair in json.loads(out)[0]["candidates"]}
    assert left == {CANDIDATES[i] for i in (6, 8, 10)} - {best}


def test_query_says_when_the_user_is_unknown(run: Any) -> None:
    status, _, err = run("query", UNKNOWN)
    assert status == 0
    assert "user 'unknown-user' is unknown to the model" in err


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


def test_predict_runs_any_signature(run: Any, tmp_path: Path) -> None:
    status, out, _ = run(
        *("predict", "--signature", "half_plus_two", "--input", "x=[2, 4]", "--json")
    )
    assert status == 0
    assert json.loads(out) == {
        "model": "retrieval_brute_force",
        "version": json.loads(out)["version"],
        "outputs": {"y": [3.0, 4.0]},
    }
    file = tmp_path / "inputs.json"
    file.write_text(
        '{"x": [[1.5, 2]], "n": 5, "flags": [true], "blob_bytes": [{"b64": "/wA="}]}',
        encoding="utf-8",
    )
    status, out, _ = run("predict", "--signature", "echo", "--inputs", str(file))
    assert status == 0
    assert sorted(out.splitlines()) == [
        'blob_bytes = [{"b64": "/wA="}]',
        "flags = [true]",
        "n = 5",
        "x = [[1.5, 2.0]]",
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give at least one input"),
        (["--input", "x"], "--input takes NAME=VALUE"),
        (["--input", "x=a"], "--input x: not JSON"),
        (["--inputs", "/nowhere.json"], "--inputs /nowhere.json: "),
        (["--input", 'x={"b64": "?"}'], "not base64: '?'"),
        (["--input", "z=[1]", "--signature", "half_plus_two"], "has no input 'z'; it has: x"),
        (["--input", "x=[1]", "--signature", "nope"], "has no signature 'nope'"),
    ],
)
def test_predict_says_what_is_wrong(run: Any, arguments: list[str], text: str) -> None:
    status, out, err = run("predict", *arguments)
    assert (status, out) == (1, "")
    assert text in err
    assert err.count("\n") == 1


def test_bench_measures_imports_and_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "client", "--without-stub", "--calls", "20", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["imports"]["GrpcClient and one call"]["megabytes"] < 60
    assert set(report["calls"]["rest, 1 user, k=10"]) == {"RestClient", "requests"}
    assert main(["bench", "client", "--calls", "1"]) == 1
    assert "--calls must be at least 20" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_bench_compares_the_client_with_the_stub(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "client", "--calls", "20", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    ours, stub = (
        report["imports"][name]["megabytes"]
        for name in ("GrpcClient and one call", "import tensorflow-serving-api's stub")
    )
    assert ours < 60 < stub
    for row in ("grpc, 1 user, k=10", "grpc, 1,000,000 float32 in and out"):
        assert set(report["calls"][row]) == {"GrpcClient", "stub"}
