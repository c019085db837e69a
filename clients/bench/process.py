"""Measurements in separate Python processes, which share no memory and threads."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time

from shortlist.clients.cli.output import progress
from shortlist.clients.cli.progress import working
from shortlist.clients.errors import ShortlistError

__all__ = ["run_python"]

_STOP_TIMEOUT = 15.0  # seconds from SIGTERM to SIGKILL


def run_python(
    *arguments: str,
    task: str,
    timeout: float,
    order: object = None,
    remedy: str = "",
    show_progress: bool = False,
) -> str:
    """Run a Python interpreter and return what it writes to stdout.

    Args:
        arguments: Arguments of the interpreter, such as `-m` and a module.
        task: Name of the measurement in progress and errors.
        timeout: Seconds until it is killed.
        order: Value to write to its stdin as JSON.
        remedy: Advice if it takes too long or is killed, which the system does if memory runs out.
        show_progress: Pass its stderr on, line by line.

    Raises:
        ShortlistError: It failed, was killed or took too long.
    """
    started = time.monotonic()
    # Files rather than pipes: neither side ever waits for the other.
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile("w+") as stdout:
        json.dump(order, stdin)
        stdin.seek(0)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal reaches only us, and we stop it
        )
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        last = "no message"
        with working(task), process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    if show_progress:
                        progress(line.rstrip("\n"))
                    last = line.strip() or last
            except BaseException:
                process.terminate()
                try:
                    process.wait(_STOP_TIMEOUT)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
            finally:
                timer.cancel()
        stdout.seek(0)
        output = stdout.read()
    advice = f"; {remedy}" if remedy else ""
    if process.returncode == -signal.SIGKILL:
        if time.monotonic() - started >= timeout:
            raise ShortlistError(f"{task}: took more than {timeout:g} s{advice}")
        raise ShortlistError(f"{task}: killed, probably for lack of memory{advice}")
    if process.returncode != 0:
        raise ShortlistError(f"{task}: failed ({process.returncode}): {last}")
    return output
