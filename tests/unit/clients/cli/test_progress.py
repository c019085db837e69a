"""Progress, quiet and colours, on terminals and in logs."""

import io
import sys
import threading
from collections.abc import Iterator

import pytest

from shortlist.clients.cli import output, terminal
from shortlist.clients.cli.progress import Meter, Work, in_words, tracked
from shortlist.clients.cli.terminal import TERMINAL, has_colours

BAR = "█" * 5 + " " * 15


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Iterator[Meter]:
    """A meter of an attended command, without a thread: the test says when to show."""
    with TERMINAL.session(quiet=False):
        meter = Meter(clock)
        meter._stop = threading.Event()
        yield meter


def use_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    stream = Screen()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def test_a_line_has_share_units_remaining_time_and_facts() -> None:
    work = Work("fit", None, 100.0)
    assert work.line(112.0) == "12 s"
    work.start(1000, done=200, now=100.0)  # those of an interrupted training
    assert work.line(112.0) == "20% 200/1,000"
    work.done, work.facts = 250, "loss=3.2"
    assert work.line(110.0) == "25% 250/1,000, 2 min left, loss=3.2"
    assert work.line(110.0, bar=True).startswith(f"25%|{BAR}| 250/1,000")


def test_a_terminal_shows_work_after_two_seconds_and_clears_it(
    meter: Meter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = use_screen(monkeypatch)
    with meter.working("train"), meter.working("fit", 4) as work:
        meter.show()
        assert screen.getvalue() == ""
        clock.seconds, work.done = 110.0, 1
        meter.show()
        assert screen.getvalue() == f"\r\x1b[Ktrain, fit: 25%|{BAR}| 1/4, 30 s left"
        with meter.working("inner"):
            meter.show()
        assert screen.getvalue().endswith("train, fit, inner: 25%|" + f"{BAR}| 1/4, 30 s left")
        output.progress("a line")
        assert screen.getvalue().endswith("left\r\x1b[Ka line\n")
        meter.show()
    assert screen.getvalue().endswith("30 s left\r\x1b[K")


def test_a_log_gets_a_line_now_and_then(
    meter: Meter, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with meter.working("gates"):
        for clock.seconds in range(100, 341):
            meter.show()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == ["gates: 10 s", "gates: 20 s", "gates: 30 s", "gates: 40 s"]
    assert 10 < len(lines) < 15, "ever rarer"


def test_nothing_is_shown_without_a_command_or_if_it_is_quiet(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Meter(clock)

    def work() -> None:
        with meter.working("gates"):
            clock.seconds += 60
            meter.show()

    work()
    with TERMINAL.session(quiet=True):
        work()
        output.progress("a step")
        output.notice("a warning")
    assert capsys.readouterr().err == "shortlist: a warning\n"
    assert not TERMINAL.attended


def test_tracked_yields_what_it_counts() -> None:
    assert list(tracked("abc", "letters")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (75, "75 s"), (720, "12 min"), (9000, "2.5 h")]
)
def test_times_are_rounded(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


@pytest.mark.parametrize(
    ("environment", "on_terminal", "in_file"),
    [
        ({}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
    ],
)
def test_colours_are_for_terminals_unless_the_environment_decides(
    environment: dict[str, str], on_terminal: bool, in_file: bool
) -> None:
    assert has_colours(Screen(), environment) is on_terminal
    assert has_colours(io.StringIO(), environment) is in_file


def test_tables_have_colours_and_the_same_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["STATE", "NAME"], ["AVAILABLE", "a\x1b[5m"], ["END", "b"]]
    output.write_table(rows, text=(0, 1))
    plain = capsys.readouterr().out
    assert plain == "STATE      NAME\nAVAILABLE  a\\u001b[5m\nEND        b\n"
    monkeypatch.setattr(output, "has_colours", lambda stream: True)
    output.write_table(rows, text=(0, 1))
    coloured = capsys.readouterr().out
    assert coloured.startswith("\x1b[1mSTATE    \x1b[0m  \x1b[1mNAME")
    assert "\x1b[32mAVAILABLE\x1b[0m  a\\u001b[5m\n\x1b[31mEND      \x1b[0m  b" in coloured


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    use_screen(monkeypatch)
    assert terminal.Terminal().redraws
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.Terminal().redraws
