"""Progress of long steps, reported to the caller without printing."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["VALIDATION_METRIC", "Progress", "StepTimer", "TrainingState"]

VALIDATION_METRIC = "ndcg@100"  # decides early stopping; seen candidates excluded

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Progress of a training.

    Attributes:
        phase: `search` for the best number of epochs, or `fit` of the final model.
        done: Batches so far.
        total: Maximum number of batches; early stopping may end the phase sooner.
        loss: Mean loss of the latest batch.
        interactions: Interactions trained on so far, repetitions included.
        validation: Latest NDCG@100 on the validation part; None before the first.
    """

    phase: str
    done: int
    total: int
    loss: float
    interactions: int
    validation: float | None = None


class Progress:
    """Progress callbacks of an export; the base class ignores them."""

    def step_started(self, step: str) -> None:
        """Handle the start of a step such as `train`."""

    def step_finished(self, step: str, measure: str, seconds: float) -> None:
        """Handle the end of a step; `measure` is its result, such as `1682 candidates`."""

    def batches_done(self, state: TrainingState) -> None:
        """Handle further batches of the training."""


@dataclass
class StepTimer:
    """Times steps, logs them and reports them to `progress`.

    Attributes:
        seconds: Duration of each finished step, in order.
    """

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time one step; the caller appends its results to the yielded list."""
        self.progress.step_started(name)
        measures: list[str] = []
        start = time.monotonic()
        yield measures
        seconds = self.seconds[name] = time.monotonic() - start
        measure = ", ".join(measures)
        log.info("%s: %s, %.1f s", name, measure, seconds)
        self.progress.step_finished(name, measure, seconds)
