import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients.cli.main import build_parser, main
from tests.unit.clients.toys import CANDIDATES, UNKNOWN, ToyServer, ranking

COMMAND = [sys.executable, "-m", "shortlist.clients.cli.main"]


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


def test_query_says_when_no_candidate_satisfies_the_filter(run: Any) -> None:
    status, out, err = run("query", "42", "--filter-any", "genre=evne")
    assert status == 0
    assert len(out.splitlines()) == 1
    assert "note: perhaps no candidate satisfies --filter-any genre=evne; check the spelling" in err


def test_query_says_when_the_user_is_unknown(run: Any) -> None:
    status, _, err = run("query", UNKNOWN)
    assert status == 0
    assert "user 'unknown-user' is unknown to the model" in err
    assert run("query", UNKNOWN, UNKNOWN)[2].startswith("note: 2 users ('unknown-user', 'unknown-")
    many = run("query", *[UNKNOWN] * 5)[2]
    assert many.startswith("note: 5 users (")
    assert "…) are unknown" in many
    assert many.count("\n") == 1


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
        (["status", "--wait", "-1", "--index", "ivf"], "--wait must be a positive number"),
        (["query", "42", "--version", "7"], "version 7 at "),
        (["query", "42", "--version", "7"], "; its versions: 2 AVAILABLE, 1 AVAILABLE\n"),
        (["query", "42", "--version", str(2**63)], "version must be a whole number of at most"),
        (["query", "42", "--model", "nope"], "; it serves: retrieval_brute_force, retrieval_ivf\n"),
        (["query", "42", "--timeout", "nan"], "timeout must be a number, got nan"),
        (["query", "\udcff"], "\\udcff"),
        (["query", "42", "--header", "a b=c"], "one that starts with 'a' cannot be sent"),
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
        (["--inputs", "/"], "--inputs /: Is a directory"),
        (
            ["--input", 'x=["2"]', "--signature", "half_plus_two"],
            "'2' does not fit DT_FLOAT (numbers); in JSON, strings have quotes",
        ),
        (["--input", "user_id=[1]"], "1 does not fit DT_STRING (strings or bytes); in JSON"),
        (["--input", "x=[[1], [2, 3]]", "--signature", "half_plus_two"], "ragged"),
        (["--input", "z=[1]", "--signature", "half_plus_two"], "has no input 'z'; it has: x"),
        (["--input", "x=[1]", "--signature", "nope"], "has no signature 'nope'"),
    ],
)
def test_predict_says_what_is_wrong(run: Any, arguments: list[str], text: str) -> None:
    status, out, err = run("predict", *arguments)
    assert (status, out) == (1, "")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_bench_measures_imports_and_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "client", "--without-stub", "--calls", "20", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["imports"]["GrpcClient and one call"]["megabytes"] < 60
    assert set(report["calls"]["rest, 1 user, k=10"]) == {"RestClient", "requests"}


def test_bench_asks_the_named_server_before_it_measures(
    server: ToyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    right = ["--grpc-address", server.grpc_address, "--rest-address", server.rest_address]
    swapped = ["--grpc-address", server.rest_address, "--rest-address", server.grpc_address]
    for options, text in (
        (["--calls", "1"], "--calls must be at least 20, got 1"),
        (right[:2], "give both --grpc-address and --rest-address"),
        (["--servable", "nope"], "--servable nope needs its server"),
        (["--threads", "2"], "--without-stub has no effect with --threads"),
        (swapped, f"{server.rest_address} speaks REST, not gRPC"),
        ([*right, "--servable", "nope"], "no servable 'nope' at "),
    ):
        assert main(["bench", "client", "--without-stub", *options]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"shortlist: error: {text}")
        assert err.count("\n") == 1


def test_every_verb_has_the_same_default_transport() -> None:
    parser = build_parser()
    for verb in (["query", "42"], ["status"], ["predict"]):
        assert parser.parse_args(verb).transport == "rest"


@pytest.mark.parametrize("verb", [["query", "42"], ["status"], ["predict", "--input", "x=[1]"]])
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("127.0.0.1:99999", "'99999' is not a port (1 to 65535) in '127.0.0.1:99999'"),
        ("localhost:abc", "'abc' is not a port"),
        ("::1:8501", "an IPv6 address has brackets"),
        ("grpc://127.0.0.1:8500", "address looks like"),
        ("127.0.0.1:8501/v1/models", "127.0.0.1:8501"),
    ],
)
def test_an_impossible_address_is_refused(
    transport: str, verb: list[str], address: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, "--transport", transport, "--address", address]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("shortlist: error: ")
    assert text in err
    assert err.count("\n") == 1


def test_a_full_disk_is_one_line_too(server: ToyServer) -> None:
    # In its own process, as the interpreter flushes what is left when it ends.
    done = subprocess.run(
        [
            "sh",
            "-c",
            'exec "$@" > /dev/full',
            "sh",
            *COMMAND,
            "status",
            "--address",
            server.rest_address,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.splitlines()[0] == "shortlist: error: [Errno 28] No space left on device"
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_ends_in_silence(server: ToyServer) -> None:
    users = [f"user-{number}" for number in range(3000)]
    with subprocess.Popen(
        [*COMMAND, "query", *users, "--timeout", "60", "--address", server.rest_address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("USER")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


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
