"""Epochs and batches of a training: order, losses, validation, progress, checkpoints."""

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import TrainConfig
from shortlist.export.progress import VALIDATION_METRIC, Progress, TrainingState
from shortlist.export.towers.trained import EpochRecord
from shortlist.export.training.checkpoint import Checkpoint, CheckpointError, Saved
from shortlist.export.training.workers import Workers, alone

__all__ = ["Steps", "TrainingLoop"]

log = logging.getLogger(__name__)

_STEPS_BETWEEN_REPORTS = 10

Examples = npt.NDArray[np.int32]


class Steps(Protocol):
    """Training of a model, one batch of examples at a time."""

    def step(self, examples: Examples) -> tf.Tensor:
        """Train on a batch and return its mean loss, a float32 scalar."""

    def interactions(self, examples: Examples) -> int:
        """Number of interactions in a batch."""

    def variables(self) -> list[tf.Variable]:
        """Variables that a step changes, always in the same order."""


@dataclass
class _State:
    """Position within a phase.

    Attributes:
        order: State of the random generator before the permutation of the current epoch.
        epoch: Finished epochs.
        batch: Finished batches of the current epoch.
        losses: Losses of these batches, with their numbers of examples.
        interactions: Interactions seen so far.
        records: Records of the finished epochs.
        best: Best metric on the validation part.
        since: Number of validations since the best one.
    """

    order: Mapping[str, Any]
    epoch: int = 0
    batch: int = 0
    losses: list[list[float]] = field(default_factory=list)
    interactions: int = 0
    records: list[EpochRecord] = field(default_factory=list)
    best: float = -1.0
    since: int = 0


class TrainingLoop:
    """One phase of a training, such as the search for the number of epochs.

    Attributes:
        batches: Batches per epoch, of about equal size.
    """

    def __init__(
        self,
        steps: Steps,
        examples: Examples,
        config: TrainConfig,
        *,
        progress: Progress,
        phase: str,
        checkpoint: Checkpoint | None = None,
        carried: Mapping[str, Any] | None = None,
        stored: Callable[[], Iterable[npt.NDArray[Any]]] = tuple,
        workers: Workers | None = None,
    ) -> None:
        """Prepare a phase; `run` trains.

        Args:
            steps: Training of the model.
            examples: int32 `[n]`, examples of an epoch; each epoch has its own random order.
            config: Training configuration: seed, patience, and values for messages.
            progress: Callback, called for each training batch.
            phase: Name in checkpoints and progress.
            checkpoint: Checkpoint to write; None to write none.
            carried: Extra values to store in checkpoints of this phase.
            stored: Returns further arrays to store there, after those of the variables.
            workers: Processes of this training; None for this one alone.
        """
        self._steps = steps
        self._examples = examples
        self._config = config
        self.batches = math.ceil(len(examples) / config.batch_size)
        self._progress = progress
        self._phase = phase
        self._checkpoint = checkpoint
        self._carried = dict(carried or {})
        self._stored = stored
        self._workers = workers or alone()

    def run(
        self,
        epochs: int,
        *,
        saved: Saved | None = None,
        validate: Callable[[], float] | None = None,
        epochs_between_looks: int = 1,
    ) -> list[EpochRecord]:
        """Train for some epochs, or until early stopping.

        Args:
            epochs: Number of epochs, at most.
            saved: Checkpoint to resume from, if it belongs to this phase.
            validate: Returns a metric on the validation part; larger is better. None trains
                all epochs.
            epochs_between_looks: Epochs between two validations.

        Raises:
            CheckpointError: The workers do not see the same checkpoint.
            ValueError: The loss is no longer finite.
        """
        random = np.random.default_rng(self._config.seed)
        state = _State(order=random.bit_generator.state)
        if saved is not None and saved.phase == self._phase:
            state = self._restore(saved)
        if not self._workers.agree(state.epoch * self.batches + state.batch):
            raise CheckpointError(
                "the workers do not see the same checkpoint; put it where all of them can read "
                "it with --checkpoints, or start again without --resume"
            )
        patience = self._config.patience
        with _summaries(self._config.tensorboard) as summarize:
            while state.epoch < epochs and (validate is None or state.since < patience):
                loss = self._epoch(state, random, epochs)
                value = None
                if validate is not None and (
                    (state.epoch + 1) % epochs_between_looks == 0 or state.epoch + 1 == epochs
                ):
                    # The same number for all workers, so that they stop together.
                    value = self._workers.mean(validate())
                    if value > state.best:
                        state.best, state.since = value, 0
                    else:
                        state.since += 1
                state.epoch, state.batch, state.losses = state.epoch + 1, 0, []
                state.order = random.bit_generator.state
                state.records.append(EpochRecord(epoch=state.epoch, loss=loss, validation=value))
                summarize(state.records[-1])
                self._save_if_due(state)
        return state.records

    def _epoch(self, state: _State, random: np.random.Generator, epochs: int) -> float:
        """Train the rest of an epoch and return its mean loss."""
        random.bit_generator.state = state.order
        parts = np.array_split(random.permutation(self._examples), self.batches)
        for batch in parts[state.batch :]:
            loss = self._steps.step(batch)
            state.batch += 1
            state.losses.append([float(loss), len(batch)])
            state.interactions += self._steps.interactions(batch)
            if state.batch % _STEPS_BETWEEN_REPORTS == 0 or state.batch == self.batches:
                self._report(state, epochs)
            if state.batch < self.batches:
                self._save_if_due(state)
        losses, weights = np.array(state.losses).T
        mean = float(np.average(losses, weights=weights))
        if not math.isfinite(mean):
            raise ValueError(
                f"training diverged: loss {mean} in epoch {state.epoch + 1}; "
                f"lower learning_rate, now {self._config.learning_rate}"
            )
        return mean

    def _report(self, state: _State, epochs: int) -> None:
        looks = [r.validation for r in state.records if r.validation is not None]
        self._progress.batches_done(
            TrainingState(
                phase=self._phase,
                done=state.epoch * self.batches + state.batch,
                total=epochs * self.batches,
                loss=state.losses[-1][0],
                interactions=state.interactions,
                validation=looks[-1] if looks else None,
            )
        )

    def _save_if_due(self, state: _State) -> None:
        if not self._workers.is_chief:
            return
        if self._checkpoint is not None and self._checkpoint.due():
            self._checkpoint.save(
                phase=self._phase,
                carried=self._carried,
                loop=asdict(state),
                arrays=itertools.chain(
                    (variable.numpy() for variable in self._steps.variables()), self._stored()
                ),
            )

    def _restore(self, saved: Saved) -> _State:
        # Further arrays follow, which the recipe restores.
        for variable, value in zip(self._steps.variables(), saved.arrays, strict=False):
            variable.assign(value)
        records = [EpochRecord(**record) for record in saved.loop["records"]]
        state = _State(**{**saved.loop, "records": records})
        log.info("resuming %s in epoch %d", self._phase, state.epoch + 1)
        return state


@contextmanager
def _summaries(folder: Path | None) -> Iterator[Callable[[EpochRecord], None]]:
    """Yield a function that writes epochs to TensorBoard event files, if there is a folder."""
    if folder is None:
        yield lambda record: None
        return
    writer = tf.summary.create_file_writer(str(folder))

    def write(record: EpochRecord) -> None:
        with writer.as_default(step=record.epoch):
            tf.summary.scalar("loss", record.loss)
            if record.validation is not None:
                tf.summary.scalar(f"validation_{VALIDATION_METRIC}", record.validation)
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
