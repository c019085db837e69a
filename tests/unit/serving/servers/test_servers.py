"""Starting, waiting for and stopping model servers, with small programs in their place."""

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from shortlist.clients import GrpcClient
from shortlist.clients.errors import ServableNotFound, Unavailable
from shortlist.clients.types import State
from shortlist.serving.errors import LoadError, ModelServerError
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.output import load_failures
from shortlist.serving.servers.runner import ModelServer, all_available, command_line
from tests.support.paths import ROOT
from tests.support.programs import install


@pytest.fixture
def options(tmp_path: Path) -> ServerOptions:
    return ServerOptions(
        model_config_file=tmp_path / "config" / "models.config",
        repository=tmp_path / "models",
        grpc_port=18500,
        rest_port=18501,
        log_file=tmp_path / "server.log",
        flags=("--enable_batching=true",),
    )


def test_every_kind_is_given_the_same_flags(programs: Path, options: ServerOptions) -> None:
    install(programs, "docker", "exit 0")
    install(programs, "tensorflow_model_server", "exit 0")
    for kind in (ServerKind.EMBEDDED, ServerKind.BINARY):
        command = command_line(kind, options)
        assert "--port=18500" in command
        assert "--rest_api_port=18501" in command
        assert f"--model_config_file={options.model_config_file}" in command
        assert command[-1] == "--enable_batching=true"


def test_docker_runs_the_compose_file_with_these_ports_and_flags(
    programs: Path, options: ServerOptions, tmp_path: Path
) -> None:
    install(programs, "docker", "exit 0")
    command = command_line(ServerKind.DOCKER, options)
    assert f"--file={ROOT / 'docker/compose.yaml'}" in command
    assert command[-1] == "serving"
    config = options.model_config_file.parent
    variables = (config / "shortlist-18500-18501.env").read_text().splitlines()
    assert f"SHORTLIST_REPOSITORY={options.repository}" in variables
    assert "SHORTLIST_GRPC_PORT=18500" in variables
    assert "SHORTLIST_SERVING_IMAGE=tensorflow/serving:2.20.0" in variables
    override = json.loads((config / "shortlist-18500-18501.json").read_text())
    serving = override["services"]["serving"]
    assert serving["command"][0] == "--port=8500"
    assert serving["command"][-1] == "--enable_batching=true"
    # The configuration lies outside the repository here, so it is mounted as well.
    assert serving["volumes"] == [f"{config}:{config}:ro"]


def test_without_any_compose_the_error_names_it(
    tmp_path: Path, options: ServerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "docker", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelServerError, match="docker has no compose plugin; install"):
        command_line(ServerKind.DOCKER, options)


@pytest.mark.parametrize(
    ("kind", "program"),
    [(ServerKind.DOCKER, "docker"), (ServerKind.BINARY, "tensorflow_model_server")],
)
def test_a_missing_program_is_named_with_what_else_to_use(
    kind: ServerKind, program: str, options: ServerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ModelServerError, match=rf"no {program} on PATH.*--server embedded"):
        ModelServer(kind, options).start()


def test_a_server_that_ends_shows_status_and_the_end_of_its_output(
    programs: Path, options: ServerOptions
) -> None:
    install(programs, "tensorflow_model_server", "echo 'Could not find base path' >&2; exit 3")
    with (
        ModelServer(ServerKind.BINARY, options) as server,
        pytest.raises(ModelServerError, match=r"(?s)ended with status 3.*Could not find base path"),
    ):
        server.wait_until(lambda: "port closed", timeout=20)


def test_a_server_that_is_late_shows_the_last_state_seen(
    programs: Path, options: ServerOptions
) -> None:
    install(programs, "tensorflow_model_server", "exec sleep 60")
    with (
        ModelServer(ServerKind.BINARY, options) as server,
        pytest.raises(ModelServerError, match=r"not ready after 0\.3 s: version 7 LOADING"),
    ):
        server.wait_until(lambda: "version 7 LOADING", timeout=0.3)


LOAD_LOG = """
E retrier.cc:44] Loading servable: {name: a b version: 2} failed: NOT_FOUND: no
E retrier.cc:44] Loading servable: {name: gamma version: 1} failed: INTERNAL: x
I loader_harness.cc:99] Successfully loaded servable version {name: gamma version: 1}
W loading.py:70] Loading servable: {name: delta version: 3} failed: OUT_OF_RANGE: Read less
I lifecycle/manager.py:251] version 1 of alpha is AVAILABLE after 0.05 s
"""
EXIT_LOG = (
    "Failed to start server. Error: UNKNOWN: 2 servable(s) did not become available: {{{name: a "
    "version: 1} due to error: INVALID_ARGUMENT: {nope}, or alias: }, {{name: b version: 12} "
    "due to error: OUT_OF_RANGE: Read less bytes than requested}, }"
)


@pytest.mark.parametrize(
    ("log", "failures"),
    [
        (
            LOAD_LOG,
            {"a b version 2": "NOT_FOUND: no", "delta version 3": "OUT_OF_RANGE: Read less"},
        ),
        (
            EXIT_LOG,
            {
                "a version 1": "INVALID_ARGUMENT: {nope}, or alias",
                "b version 12": "OUT_OF_RANGE: Read less bytes than requested",
            },
        ),
        ("version 1 of alpha is AVAILABLE after 0.05 s", {}),
    ],
)
def test_failed_loads_are_read_from_the_output_of_a_server(
    log: str, failures: dict[str, str]
) -> None:
    assert load_failures(log.splitlines()) == failures


@pytest.mark.parametrize("to_file", [True, False], ids=["file", "stderr"])
@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("exit 255", "the binary server did not load "),
        ("exec sleep 60", r"the binary server was not ready after 1 s: "),
    ],
)
def test_versions_that_did_not_load_are_named_with_the_reasons_of_the_server(
    programs: Path,
    options: ServerOptions,
    capfd: pytest.CaptureFixture[str],
    to_file: bool,
    end: str,
    message: str,
) -> None:
    """The ports are closed meanwhile, so each model looks the same from outside."""
    (programs / "log").write_text(EXIT_LOG + "\n")
    install(programs, "tensorflow_model_server", f"cat {programs / 'log'}; {end}")
    if not to_file:
        options = replace(options, log_file=None)
    reasons = r"a version 1 \(INVALID_ARGUMENT.*\), b version 12 \(OUT_OF_RANGE: Read less"
    with (
        ModelServer(ServerKind.BINARY, options) as server,
        pytest.raises(LoadError, match=message + reasons),
    ):
        server.wait_until(lambda: "port closed", timeout=1)
    assert capfd.readouterr().err == ("" if to_file else EXIT_LOG + "\n")


def versions(*states: tuple[int, State, str]) -> SimpleNamespace:
    return SimpleNamespace(
        versions=[SimpleNamespace(version=v, state=s, error_message=m) for v, s, m in states]
    )


class Statuses:
    """Answers of a server to status, by model name."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.answers = answers

    def status(self, *, model: str, timeout: float) -> object:
        answer = self.answers[model]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_every_model_that_is_not_available_is_named() -> None:
    answers = {
        "a": versions((1, State.AVAILABLE, "")),
        "b": versions((2, State.END, "Read less")),
        "c": versions((1, State.AVAILABLE, "")),
        "d": ServableNotFound("no servable 'd'"),
        "e": versions((1, State.LOADING, "")),
        "f": versions((2, State.END, "Op type")),
    }
    client = cast(GrpcClient, Statuses(answers))
    wanted = {"a": [1], "b": [2], "c": [3], "d": [1], "e": [1], "f": [2]}
    assert all_available(client, wanted)() == (
        "b version 2 did not load: Read less; f version 2 did not load: Op type; "
        "c version 3 is not known to the server yet; d: no servable 'd'; e version 1 is LOADING"
    )
    with pytest.raises(LoadError, match=r"b version 2 \(Read less\), f version 2 \(Op type\)"):
        all_available(client, wanted, give_up=True)()
    assert all_available(client, {"a": [1]})() is None


def test_closed_ports_are_not_blamed_on_a_model() -> None:
    client = cast(GrpcClient, Statuses({"healthy": Unavailable("no answer to 'healthy'")}))
    missing = all_available(client, {"healthy": [1]})()
    assert missing == "its ports are closed; it opens them when every model is AVAILABLE"


def test_stop_lets_the_server_shut_down_and_can_be_repeated(
    programs: Path, options: ServerOptions
) -> None:
    """SIGTERM first, so that calls in flight can end."""
    script = 'trap "echo drained; exit 0" TERM; echo up; while :; do sleep 0.05; done'
    install(programs, "tensorflow_model_server", script)
    assert options.log_file is not None
    log = options.log_file
    server = ModelServer(ServerKind.BINARY, options).start()
    server.wait_until(lambda: None if "up" in log.read_text() else "no output", timeout=20)
    server.stop()
    server.stop()
    assert log.read_text().splitlines() == ["up", "drained"]


def test_stopping_docker_removes_a_container_that_compose_left(
    programs: Path, options: ServerOptions, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    script = f'echo "$@" >> {calls}; case "$*" in *" up "*) exec sleep 60 ;; esac; exit 0'
    install(programs, "docker", script)
    server = ModelServer(ServerKind.DOCKER, options).start()
    server.wait_until(lambda: None if " up " in calls.read_text() else "not called", timeout=20)
    server.stop()
    last = calls.read_text().splitlines()[-1]
    assert "--project-name=shortlist-18500-18501 down --volumes" in last


def test_unknown_kind_lists_the_known() -> None:
    with pytest.raises(ValueError, match="embedded, docker, binary, got 'podman'"):
        ServerKind("podman")


def test_one_port_for_both_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different ports, got 8500"):
        ServerOptions(
            model_config_file=tmp_path, repository=tmp_path, grpc_port=8500, rest_port=8500
        )


def test_a_taken_port_is_refused_and_zero_finds_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ModelServerError, match=rf"port {port} cannot be used.*--port"):
            claim_port(port, option="--port")
        assert claim_port(0, option="--port") not in (0, port)


def test_a_log_that_cannot_be_written_is_reported(programs: Path, options: ServerOptions) -> None:
    install(programs, "tensorflow_model_server", "exit 0")
    assert options.log_file is not None
    options.log_file.mkdir()
    with pytest.raises(ModelServerError, match=r"cannot start: .*server\.log: Is a directory"):
        ModelServer(ServerKind.BINARY, options).start()


STARTER = """
import os, signal, sys
from pathlib import Path
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions
from shortlist.serving.servers.runner import ModelServer

folder = Path(sys.argv[1])
options = ServerOptions(
    model_config_file=folder / "models.config", repository=folder, log_file=folder / "log"
)
server = ModelServer(ServerKind.BINARY, options, temporary=True).start()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_temporary_server_ends_with_a_process_that_is_killed(
    programs: Path, tmp_path: Path
) -> None:
    """Else an export that is killed at its gates would leave a server behind."""
    install(programs, "tensorflow_model_server", "exec sleep 60")
    started = subprocess.run(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == -signal.SIGKILL
    process = Path("/proc", started.stdout.strip())
    deadline = time.monotonic() + 10
    while process.exists() and "sleep" in (process / "cmdline").read_text():
        assert time.monotonic() < deadline, "the server still runs"
        time.sleep(0.05)
