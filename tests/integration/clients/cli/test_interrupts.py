"""Ctrl-C ends a command at any point."""

import signal
import subprocess
import sys

import pytest

from tests.support.command import allow_interrupts

pytestmark = pytest.mark.slow

# A finaliser that takes its time, and work after it that never ends by itself.
PROGRAM = """
import time, weakref
from shortlist.clients.cli.interrupts import interruptible

class Slow:
    def __del__(self):
        print("finalising", flush=True)
        time.sleep(0.5)

class Plain:
    pass

def callback(_):
    print("finalising", flush=True)
    time.sleep(0.5)

try:
    with interruptible():
        if {callback}:
            objects = weakref.WeakSet()
            plain = Plain()
            objects.add(plain)
            gone = weakref.finalize(plain, callback, None)
            del plain
        else:
            Slow()
        time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""


def interrupted(program: str, number: signal.Signals, *, after: str) -> str:
    """Return the output of a program after a signal, sent once it has printed its first line."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=allow_interrupts,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{after}\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("callback", [False, True], ids=["__del__", "weakref"])
def test_an_interrupt_within_a_finaliser_is_not_lost(
    number: signal.Signals, callback: bool
) -> None:
    program = PROGRAM.format(callback=callback)
    assert interrupted(program, number, after="finalising") == "interrupted\n"


SWALLOWED = """
import time
from shortlist.clients.cli.interrupts import interruptible

try:
    with interruptible():
        try:
            print("ready", flush=True)
            time.sleep(30)
        except:
            pass
        print("went on", flush=True)
        time.sleep(30)
        print("never told", flush=True)
except KeyboardInterrupt:
    print("interrupted")
"""
CLEANED_UP = """
import contextlib, time
from shortlist.clients.cli.interrupts import interruptible

@contextlib.contextmanager
def server():
    try:
        yield
    finally:
        try:
            raise ValueError
        except ValueError:
            time.sleep(0.3)
        print("stopped", flush=True)

def serve():
    try:
        with server():
            print("ready", flush=True)
            time.sleep(30)
    except KeyboardInterrupt:
        time.sleep(0.3)
        return "ended in order"

with interruptible():
    print(serve())
time.sleep(0.2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("program", "expected"),
    [(SWALLOWED, "went on\ninterrupted\n"), (CLEANED_UP, "stopped\nended in order\n")],
    ids=["swallowed", "cleaned up"],
)
def test_an_interrupt_comes_again_unless_it_is_handled(
    number: signal.Signals, program: str, expected: str
) -> None:
    assert interrupted(program, number, after="ready") == expected


def test_an_interrupt_that_the_parent_ignores_stays_ignored() -> None:
    program = (
        "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from shortlist.clients.cli.interrupts import interruptible\n"
        "with interruptible():\n    os.kill(os.getpid(), signal.SIGINT)\n    print('went on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "went on\n"
