"""How long steps tell their caller what they are doing, without printing."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["VALIDATION_METRIC", "Progress", "StepTimer", "TrainingState"]

VALIDATION_METRIC = "ndcg@100"  # what training is stopped by, seen candidates excluded

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """How far a training is.

    Attributes:
        phase: `search` for the best number of epochs, or `fit` of the final model.
        done: Batches so far.
        total: Batches at most; early stopping may end the phase before.
        loss: Mean of the latest batch.
        interactions: Trained on so far, each as often as it was.
        validation: NDCG@100 at the latest look at the validation part; None before one.
    """

    phase: str
    done: int
    total: int
    loss: float
    interactions: int
    validation: float | None = None


class Progress:
    """Receives the course of an export; this one ignores it, a command line shows it."""

    def step_started(self, step: str) -> None:
        """A step such as `train` begins."""

    def step_finished(self, step: str, measure: str, seconds: float) -> None:
        """A step ended; `measure` says what it did, such as `1682 candidates`."""

    def batches_done(self, state: TrainingState) -> None:
        """Training has done some more of its batches."""


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
