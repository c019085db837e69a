"""Export, serve and query, as in the README."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from shortlist.serving.repository.local import ModelRepository
from tests.support.command import (
    SMALL_SAMPLE,
    processes_that_name,
    run,
    run_json,
    started,
    wait_for_text,
)

pytestmark = pytest.mark.slow

SERVABLES = ["retrieval_brute_force", "retrieval_ivf", "retrieval_scann"]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One demo, whose versions the other tests serve."""

    folder: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    done = run("demo", *SMALL_SAMPLE, cwd=folder)
    assert done.returncode == 0, done.stderr
    return Demo(folder=folder, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture(scope="module")
def repository(demo: Demo) -> Path:
    return demo.folder / "demo-output/sample/models"


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    log = tmp_path_factory.mktemp("serve") / "log"
    ports = ("--port", "0", "--rest-port", "0", "--ui", "--ui-port", "0")
    arguments = ("serve", "--repository", str(repository), *ports)
    with started(*arguments, "--json", log=log) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield {**json.loads(line), "process": process}


def query(server: dict[str, Any], transport: str, servable: str, user_id: str) -> Any:
    index = servable.removeprefix("retrieval_")
    address = server["grpc" if transport == "grpc" else "rest"]
    return run_json(
        *("query", user_id, "-k", "5", "--transport", transport),
        *("--address", address, "--index", index),
    )


def test_the_demo_shows_answers_of_every_servable(demo: Demo, repository: Path) -> None:
    assert demo.stderr.startswith("data: sample, given by --data\n")
    for servable in SERVABLES:
        assert servable in demo.stdout
        assert (repository / servable / "1" / "saved_model.pb").is_file()
    assert (
        f"shortlist serve --repository {repository.relative_to(demo.folder)} --ui " in demo.stdout
    )
    assert "REST and gRPC agree" in demo.stderr
    assert processes_that_name(str(demo.folder)) == []


def test_all_three_servables_are_served(server: dict[str, Any]) -> None:
    assert server["servables"] == dict.fromkeys(SERVABLES, 1)
    assert server["left_out"] == {}


def test_page_of_the_server_shows_a_list_and_the_report(server: dict[str, Any]) -> None:
    with urlopen(server["page"], timeout=10) as answer:
        page = answer.read().decode()
    assert 'role="alert"' not in page
    assert page.count('<span class="score">') == 10
    assert "similar to" in page
    with urlopen(f"{server['page']}versions/retrieval_ivf/1/report", timeout=10) as answer:
        assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("servable", SERVABLES)
def test_rest_and_grpc_give_the_same_ids_and_scores(server: dict[str, Any], servable: str) -> None:
    over_rest, over_grpc = (
        query(server, transport, servable, "1")[0]["candidates"] for transport in ("rest", "grpc")
    )
    assert len(over_rest) == 5
    assert [row["candidate_id"] for row in over_rest] == [row["candidate_id"] for row in over_grpc]
    assert [row["score"] for row in over_rest] == pytest.approx(
        [row["score"] for row in over_grpc], rel=1e-5
    )


def test_status_shows_the_published_version(server: dict[str, Any]) -> None:
    status = run_json("status", "--address", server["grpc"], "--transport", "grpc")
    assert "AVAILABLE" in json.dumps(status)


def test_a_server_that_is_not_there_is_reported_in_one_line() -> None:
    done = run("query", "1", "--address", "127.0.0.1:1", "--transport", "grpc", "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("shortlist: error: ")
    assert "Traceback" not in done.stderr
    assert "127.0.0.1:1" in done.stderr


def test_an_empty_repository_is_reported_with_the_remedy(tmp_path: Path) -> None:
    done = run("serve", "--repository", str(tmp_path))
    assert done.returncode == 1
    assert "shortlist export" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_in_order_and_leaves_no_process(
    repository: Path, tmp_path: Path, signal_number: signal.Signals
) -> None:
    ports = ("--port", "0", "--rest-port", "0", "--ui", "--ui-port", "0")
    arguments = ("serve", "--repository", str(repository), *ports)
    servable = ("--servable", "retrieval_brute_force", "--json")
    with started(*arguments, *servable, log=tmp_path / "log") as process:
        assert process.stdout is not None
        served = json.loads(process.stdout.readline())
        process.send_signal(signal_number)
        assert process.wait(30) == 0
    port = served["grpc"].rsplit(":", 1)[1]
    assert processes_that_name(f"--port={port}") == []


@pytest.mark.parametrize(
    ("moment", "signal_number"),
    [("data ", signal.SIGINT), ("train ", signal.SIGTERM), ("save ", signal.SIGTERM)],
)
def test_a_demo_that_is_stopped_leaves_no_process_and_no_half_version(
    tmp_path: Path, moment: str, signal_number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is interrupted in the step after each of these lines of progress."""
    models, log = tmp_path / "models", tmp_path / "log"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    arguments = ("demo", *SMALL_SAMPLE, "--repository", str(models))
    with started(*arguments, log=log) as process:
        wait_for_text(log, moment, process, 120)
        process.send_signal(signal_number)
        assert process.wait(60) == 130
    assert log.read_text().rstrip().endswith("shortlist: interrupted")
    assert processes_that_name(str(models)) == []
    assert list(tmp_path.glob("shortlist-*")) == []
    assert not list(models.glob("*/.publishing-*"))
    repository = ModelRepository(models)
    for name in repository.models():
        for version in repository.versions(name):
            assert repository.manifest(name, version) is not None


def test_wrong_usage_exits_with_2() -> None:
    done = run("serve", "--server", "podman")
    assert done.returncode == 2
    assert "invalid choice: 'podman'" in done.stderr
