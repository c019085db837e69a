"""How long steps tell their caller what they are doing, without printing."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Progress", "StepTimer"]

log = logging.getLogger(__name__)


class Progress:
    """Receives the course of an export; this one ignores it, a command line shows it."""

    def step_started(self, step: str) -> None:
        """A step such as `train` begins."""

    def step_finished(self, step: str, measure: str, seconds: float) -> None:
        """A step ended; `measure` says what it did, such as `1682 candidates`."""

    def batches_done(self, done: int, total: int, loss: float) -> None:
        """Training has done so many of its batches, at this mean loss per interaction."""


@dataclass
class StepTimer:
    """Times steps, logs them and passes them on.

    Attributes:
        seconds: What each finished step took, in order.
    """

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Times one step; the caller appends what the step did to the yielded list."""
        self.progress.step_started(name)
        measures: list[str] = []
        start = time.monotonic()
        yield measures
        took = time.monotonic() - start
        self.seconds[name] = took
        measure = ", ".join(measures)
        log.info("%s: %s, %.1f s", name, measure, took)
        self.progress.step_finished(name, measure, took)
