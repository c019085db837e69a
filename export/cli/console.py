"""Progress of an export on a terminal."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from tqdm import tqdm

from shortlist.clients.cli.output import progress
from shortlist.clients.cli.output import step as step_line
from shortlist.export.data.config import DataConfig
from shortlist.export.progress import VALIDATION_METRIC, Progress, TrainingState

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset

__all__ = ["ConsoleProgress", "command_name", "load_data"]


class ConsoleProgress(Progress):
    """One line per finished step, and a bar during training.

    A context manager, so that an interrupted bar is cleared.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._bar: tqdm[Any] | None = None
        self._phase = ""
        self._start = (0.0, 0)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close_bar()

    def step_finished(self, step: str, measure: str, seconds: float) -> None:
        """Write the step's line."""
        self._close_bar()
        self._stream.write(f"{step_line(step, seconds, measure)}\n")
        self._stream.flush()

    def batches_done(self, state: TrainingState) -> None:
        """Move the bar: loss, interactions per second, and the latest validation metric."""
        if self._bar is None or self._phase != state.phase:
            self._close_bar()
            self._open_bar(state)
        bar = self._bar
        assert bar is not None
        now = self._clock()
        if now - self._drawn > 0.2:  # seconds; more often is not readable
            shown = {"loss": f"{state.loss:.3f}"}
            since, before = self._start
            if now > since:
                shown["examples/s"] = f"{(state.interactions - before) / (now - since):,.0f}"
            if state.validation is not None:
                shown[VALIDATION_METRIC] = f"{state.validation:.4f}"
            bar.n = state.done
            bar.set_postfix(shown)  # draws it
            self._drawn = now

    def _open_bar(self, state: TrainingState) -> None:
        self._phase = state.phase
        # A resumed training has done some batches already; the rate counts from here.
        self._start = (self._clock(), state.interactions)
        self._bar = tqdm(
            total=state.total,
            initial=state.done,
            desc=state.phase,
            # Fits into 80 columns.
            bar_format="{desc}: {percentage:.0f}%|{bar}| {n}/{total}, {remaining} left{postfix}",
            file=self._stream,
            leave=False,
            disable=not self._stream.isatty(),  # log files get lines only
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def load_data(config: DataConfig) -> "Dataset":
    """Load the configured data; write a line of progress with its size and period.

    Raises:
        DataError: The data cannot be found or read, or is inconsistent.
    """
    from shortlist.export.data import load

    started = time.monotonic()
    dataset = load(config)
    for note in dataset.notes:
        progress(note)
    progress(step_line("data", time.monotonic() - started, _data_line(dataset)))
    return dataset


def _data_line(dataset: "Dataset") -> str:
    """Return name, size, period and features of the data."""
    line = (
        f"{dataset.name}: {dataset.num_interactions:,} interactions of "
        f"{len(dataset.user_ids):,} users with {len(dataset.candidate_ids):,} candidates"
    )
    if dataset.timestamps is None:
        line += ", without times"
    else:
        first, last = (
            str(time.astype("datetime64[s]"))[:10]
            for time in (dataset.timestamps.min(), dataset.timestamps.max())
        )
        line += f", {first} to {last}"
    features = [*dataset.user_attributes, *dataset.context]
    return f"{line}, features {', '.join(features)}" if features else line


def command_name() -> str:
    """Return the command as the user must type it: with its path if it is not on PATH."""
    called = Path(sys.argv[0])
    return (
        str(called) if called.name == "shortlist" and not shutil.which("shortlist") else "shortlist"
    )
