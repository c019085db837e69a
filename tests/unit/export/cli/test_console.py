"""Progress on a terminal while a model is trained."""

import io
import sys
import threading

import pytest

from shortlist.clients.cli.progress import Meter
from shortlist.clients.cli.terminal import TERMINAL
from shortlist.export.cli import console
from shortlist.export.cli.console import ConsoleProgress
from shortlist.export.progress import TrainingState


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def state(phase: str, done: int, validation: float | None = None) -> TrainingState:
    return TrainingState(
        phase=phase,
        done=done,
        total=40,
        loss=3.25,
        interactions=1000 * done,
        validation=validation,
    )


def test_line_shows_rate_loss_and_validation_metric_of_each_phase(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter(range(0, 1000, 4))
    meter, stream = Meter(lambda: next(seconds)), Terminal()
    meter._stop = threading.Event()  # no thread: the test says when to show
    monkeypatch.setattr(console, "working", meter.working)
    monkeypatch.setattr(TERMINAL, "attended", True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    steps = iter(range(100))
    with ConsoleProgress(clock=lambda: next(steps)) as progress:
        progress.step_started("train")
        progress.batches_done(state("search", 10))
        progress.batches_done(state("search", 20, 0.1234))
        meter.show()
        progress.batches_done(state("fit", 10))
        meter.show()
        progress.step_finished("train", "1000 interactions", 1.0)
    text = stream.getvalue()
    assert "train, search: 50%|" in text
    assert "train, fit: 25%|" in text
    # 10,000 more interactions in the second that the clock of this test ticked.
    assert "loss=3.250, examples/s=10,000, ndcg@100=0.1234" in text
    assert text.endswith("\r\x1b[Ktrain                 1.0 s  1000 interactions\n")


def test_log_file_gets_lines_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleProgress() as progress:
        progress.step_started("train")
        progress.batches_done(state("fit", 10))
        progress.step_finished("train", "1000 interactions", 1.0)
    assert capsys.readouterr().err == "train                 1.0 s  1000 interactions\n"
