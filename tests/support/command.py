"""The `shortlist` command of this checkout, run in separate processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

COMMAND = (sys.executable, "-m", "shortlist")
SMALL_SAMPLE = (
    *("--data", "sample", "--sample-users", "60", "--sample-candidates", "150"),
    *("--sample-interactions", "1500"),
)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def allow_interrupts() -> None:
    """Let SIGINT end a child as usual; for `preexec_fn`.

    The caller of the tests may ignore it (`nohup make test &`), which children inherit.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(
    *arguments: str, timeout: float = 240, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its output, also if it fails."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_json(*arguments: str, timeout: float = 240) -> Any:
    """Return the `--json` output of a command that must succeed."""
    done = run(*arguments, "--json", timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def started(*arguments: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a command with stdout on a pipe and stderr in `log`; stop it at the end."""
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=allow_interrupts,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()


def processes_that_name(text: str) -> list[str]:
    """Return the command lines of other running processes that contain `text`."""
    commands = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # the process has ended
            continue
        if text in command:
            commands.append(command)
    return commands


def wait_for_text(path: Path, text: str, process: subprocess.Popen[str], timeout: float) -> None:
    """Wait until `text` appears in a file that `process` writes."""
    deadline = time.monotonic() + timeout
    while text not in path.read_text():
        assert process.poll() is None, path.read_text()
        assert time.monotonic() < deadline, f"no {text!r} after {timeout} s: {path.read_text()}"
        time.sleep(0.05)
