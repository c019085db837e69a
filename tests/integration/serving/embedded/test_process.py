"""The process as an operator sees it, before TensorFlow is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "shortlist.serving.embedded", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return stderr without the list of imports."""
    return [line for line in done.stderr.splitlines() if not line.startswith("import time:")]


def assert_without_tensorflow(done: subprocess.CompletedProcess[str]) -> None:
    assert "tensorflow" not in done.stderr


def test_help_shows_the_flags_and_exits_like_the_real_server() -> None:
    done = run("--help")
    assert done.returncode == 255
    assert done.stdout.startswith(
        "usage: python -m shortlist.serving.embedded\nFlags:\n\t--port=8500 "
    )
    assert not lines(done)
    assert_without_tensorflow(done)


def test_version_names_server_and_library() -> None:
    done = run("--version")
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.startswith("TensorFlow ModelServer: ")
    assert second.startswith("TensorFlow Library: 2.20.")
    assert_without_tensorflow(done)


def test_value_that_does_not_parse_ends_the_start() -> None:
    done = run("--port=eight", "--model_base_path=/m")
    assert done.returncode == 255
    assert done.stdout.startswith("usage: ")
    (line,) = lines(done)
    assert line.endswith("] Couldn't interpret value eight for flag port.")


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--port=0"], "INVALID_ARGUMENT: At least one of server_options.grpc_port or "),
        ([], "INVALID_ARGUMENT: Both server_options.model_base_path and "),
        (["--model_config_file=/none"], "NOT_FOUND: /none; No such file or directory"),
    ],
)
def test_failed_start_is_explained_in_one_line(argv: list[str], error: str) -> None:
    done = run(*argv)
    assert done.returncode == 255
    assert done.stdout.startswith(f"Failed to start server. Error: {error}")
    assert done.stdout.count("\n") == 1
    assert_without_tensorflow(done)


def test_unknown_argument_is_reported_and_the_start_continues(tmp_path: Path) -> None:
    done = run("--no_such_flag", "extra", f"--model_config_file={tmp_path}/none")
    assert done.stdout.startswith("unknown argument: --no_such_flag\nusage: ")
    assert done.stdout.splitlines()[-1].startswith("Failed to start server. Error: NOT_FOUND: ")


def test_flag_without_effect_is_accepted_with_a_warning(tmp_path: Path) -> None:
    done = run("--prefer_tflite_model", f"--model_config_file={tmp_path}/none")
    (warning,) = lines(done)
    assert ": W shortlist/serving/embedded/process.py:" in warning
    assert "--prefer_tflite_model has no effect in the embedded server: " in warning
