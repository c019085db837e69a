"""Progress of an export on a terminal."""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from shortlist.clients.cli.output import progress
from shortlist.clients.cli.output import step as step_line
from shortlist.clients.cli.progress import Work, working
from shortlist.export.data.config import DataConfig
from shortlist.export.progress import VALIDATION_METRIC, Progress, TrainingState

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset

__all__ = ["ConsoleProgress", "command_name", "load_data"]


class ConsoleProgress(Progress):
    """One line per finished step, and the progress of the current one.

    A context manager, so that an interrupted step is no longer shown.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step = ExitStack()
        self._phase = ExitStack()  # within a step
        self._work: Work | None = None  # of the phase
        self._start = (0.0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def step_started(self, step: str) -> None:
        """Show the step, by its elapsed time unless it tells more."""
        self._end()
        self._step.enter_context(working(step))

    def step_finished(self, step: str, measure: str, seconds: float) -> None:
        """Write the step's line."""
        self._end()
        progress(step_line(step, seconds, measure))

    def batches_done(self, state: TrainingState) -> None:
        """Show loss, interactions per second, and the latest validation metric."""
        now = self._clock()
        if self._work is None or self._work.name != state.phase:
            self._phase.close()
            self._work = self._phase.enter_context(working(state.phase))
            # A resumed training has done some batches already; the rate counts from here.
            self._start = (now, state.interactions)
            self._work.start(state.total, done=state.done, now=now)
        facts = [f"loss={state.loss:.3f}"]
        since, before = self._start
        if now > since:
            facts.append(f"examples/s={(state.interactions - before) / (now - since):,.0f}")
        if state.validation is not None:
            facts.append(f"{VALIDATION_METRIC}={state.validation:.4f}")
        self._work.done, self._work.facts = state.done, ", ".join(facts)

    def _end(self) -> None:
        self._phase.close()
        self._step.close()
        self._work = None


def load_data(config: DataConfig) -> "Dataset":
    """Load the configured data; write a line of progress with its size and period.

    Raises:
        DataError: The data cannot be found or read, or is inconsistent.
    """
    from shortlist.export.data import load

    started = time.monotonic()
    with working("data"):
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
