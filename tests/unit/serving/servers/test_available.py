"""Refusals before a server starts."""

import os
import socket
import sys
from pathlib import Path

import pytest

from shortlist.serving import installed
from shortlist.serving.errors import ModelServerError
from shortlist.serving.servers.available import check_available, check_flags
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.serve import ServeRequest, replace_process, running
from tests.support.programs import install
from tests.support.recorded import RECORDED

USAGE = RECORDED / "flags.txt"  # what the binary prints for --help


@pytest.fixture
def programs(programs: Path) -> Path:
    """The folder of programs, with a binary that prints the usage."""
    install(programs, "tensorflow_model_server", f"cat {USAGE}; exit 255")
    return programs


@pytest.mark.parametrize("kind", [ServerKind.BINARY, ServerKind.DOCKER])
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--typo=1", r"'--typo=1' is not a flag of the \w+ server; `.*--help` lists all"),
        ("--enable_batchin=1", r"'--enable_batchin=1' is not .*; did you mean --enable_batching\?"),
        ("-num_load_threads=1", r"'-num_load_threads=1' .*did you mean --num_load_threads\?"),
        ("extra", r"'extra' is not a flag"),
        ("--num_load_threads", r"--num_load_threads needs a value: --num_load_threads=VALUE"),
        ("--num_load_threads=two", r"'two' is not a valid int32 value of --num_load_threads"),
        ("--enable_batching=maybe", r"'maybe' is not a valid bool value of --enable_batching"),
        ("--port=9000", r"--port=9000 after -- is not possible: .*use --port before --"),
        ("--model_name=m", r"--model_name=m after -- .*use --servable before --"),
        ("--rest_api_port=1", r"--rest_api_port=1 after -- .*use --rest-port before --"),
    ],
)
def test_a_flag_that_the_server_does_not_take_is_refused(
    programs: Path, kind: ServerKind, flag: str, message: str
) -> None:
    """TensorFlow Serving would start without it, as `start_unknown_flag.json` records."""
    install(programs, "docker", f'case "$*" in run*--help) cat {USAGE} ;; esac')
    with pytest.raises(ModelServerError, match=message):
        check_available(kind, flags=["--enable_batching", "--max_num_load_retries=0", flag])


@pytest.mark.parametrize("kind", [ServerKind.EMBEDDED, ServerKind.BINARY])
def test_flags_of_the_server_are_accepted(programs: Path, kind: ServerKind) -> None:
    flags = ["--enable_batching", "--enable_batching=TRUE", "--load_retry_interval_micros=-1"]
    check_available(kind, flags=[*flags, "--saved_model_tags=", "--grpc_max_threads=8"])


def test_only_the_embedded_server_knows_its_own_flags(programs: Path) -> None:
    check_flags(ServerKind.EMBEDDED, ["--drain_seconds=1"])
    with pytest.raises(ModelServerError, match="not a flag of the embedded server"):
        check_flags(ServerKind.EMBEDDED, ["--typo=1"])
    with pytest.raises(ModelServerError, match="not a flag of the binary server"):
        check_flags(ServerKind.BINARY, ["--drain_seconds=1"])


def test_a_program_without_usage_is_not_judged(programs: Path) -> None:
    """A wrapper script may start another version with other flags."""
    install(programs, "tensorflow_model_server", "exit 0")
    check_flags(ServerKind.BINARY, ["--flag_of_another_version=1"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ServerKind.BINARY, "no tensorflow_model_server on PATH; .*--server embedded"),
        (ServerKind.DOCKER, "no docker on PATH; .*--server embedded"),
    ],
)
def test_a_missing_program_is_refused_like_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: ServerKind, message: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ModelServerError, match=message) as before:
        check_available(kind)
    with (
        pytest.raises(ModelServerError, match=message) as at_start,
        running(ServeRequest(repository=tmp_path, kind=kind)),
    ):
        pass
    assert str(before.value) == str(at_start.value)


def test_a_docker_engine_that_does_not_answer_is_refused(programs: Path) -> None:
    install(programs, "docker", '[ "$1" = compose ] || { echo "no daemon" >&2; exit 1; }')
    with pytest.raises(ModelServerError, match=r"no Docker engine answers \(no daemon\)"):
        check_available(ServerKind.DOCKER)


def test_an_embedded_server_without_its_packages_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None if name == "orjson" else True)
    with pytest.raises(
        ModelServerError, match=r"orjson is not installed; .*'shortlist\[embedded\]'"
    ):
        check_available(ServerKind.EMBEDDED)


def test_a_taken_port_and_one_port_for_both_are_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ModelServerError, match=rf"port {port} cannot be used.*--rest-port"):
            check_available(ServerKind.EMBEDDED, rest_port=port)
        with pytest.raises(ValueError, match=f"different ports, got {port}"):
            check_available(ServerKind.EMBEDDED, grpc_port=port, rest_port=port)


def test_own_configuration_of_models_does_not_excuse_an_unknown_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: sys.exit("started"))
    with pytest.raises(ModelServerError, match="did you mean --model_name"):
        replace_process(ServerKind.EMBEDDED, ["--model_base_path=/m", "--model_nam=m"])
