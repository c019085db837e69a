"""Progress on a terminal while a model is trained."""

import io

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


def test_bar_shows_rate_loss_and_validation_metric_of_each_phase() -> None:
    seconds = iter(range(100))
    stream = Terminal()
    with ConsoleProgress(stream, clock=lambda: next(seconds)) as progress:
        progress.batches_done(state("search", 10))
        progress.batches_done(state("search", 20, 0.1234))
        progress.batches_done(state("fit", 10))
        progress.step_finished("train", "1000 interactions", 1.0)
    text = stream.getvalue()
    assert "search: 25%" in text
    assert "fit: 25%" in text
    assert "loss=3.250" in text
    # 10,000 more interactions in the two seconds that the clock of this test ticked.
    assert "examples/s=5,000" in text
    assert "ndcg@100=0.1234" in text
    assert text.rstrip().endswith("train                 1.0 s  1000 interactions")


def test_log_file_gets_lines_and_no_bar() -> None:
    stream = io.StringIO()
    with ConsoleProgress(stream) as progress:
        progress.batches_done(state("fit", 10))
        progress.step_finished("train", "1000 interactions", 1.0)
    assert stream.getvalue() == "train                 1.0 s  1000 interactions\n"
