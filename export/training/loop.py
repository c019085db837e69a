"""Epochs and batches of a training: order, losses, looks, progress, checkpoints."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.config import TrainConfig
from shortlist.export.progress import Progress, TrainingState
from shortlist.export.towers.trained import EpochRecord
from shortlist.export.training.checkpoint import Checkpoint, CheckpointError, Saved
from shortlist.export.training.workers import Workers, alone

__all__ = ["Steps", "TrainingLoop"]

log = logging.getLogger(__name__)

_STEPS_BETWEEN_REPORTS = 10

Examples = npt.NDArray[np.int32]


class Steps(Protocol):
    """What is trained, one batch of examples at a time."""

    def step(self, examples: Examples) -> tf.Tensor:
        """Learns from a batch; returns its mean loss, a float32 scalar."""

    def interactions(self, examples: Examples) -> int:
        """How many interactions a batch stands for."""

    def variables(self) -> list[tf.Variable]:
        """All that a step changes, in an order that never changes."""


@dataclass
class _State:
    """Where a phase is; `order` is the generator's state before the epoch's permutation.

    Attributes:
        epoch: Epochs that are done.
        batch: Batches of the next one that are done.
        losses: Of those batches, with their numbers of examples.
        interactions: Seen so far.
        records: Of the epochs that are done.
        best: Best look at the validation part.
        since: Looks since then.
        order: State of the generator of orders.
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
        batches: Per epoch.
    """

    def __init__(
        self,
        steps: Steps,
        examples: Examples,
        config: TrainConfig,
        *,
        batches: int,
        progress: Progress,
        phase: str,
        checkpoint: Checkpoint | None = None,
        carried: Mapping[str, Any] | None = None,
        workers: Workers | None = None,
    ) -> None:
        """Takes note; `run` trains.

        Args:
            steps: What is trained.
            examples: int32 `[n]`, what an epoch goes through in an order of its own.
            config: Seed, patience, and what messages name.
            batches: Into how many parts, as equal as can be, an epoch is divided.
            progress: Told of batches.
            phase: Name in checkpoints and progress.
            checkpoint: Where to save; None for nowhere.
            carried: What a checkpoint of this phase shall hold besides.
            workers: Who trains; None for this process alone.
        """
        self._steps = steps
        self._examples = examples
        self._config = config
        self.batches = batches
        self._progress = progress
        self._phase = phase
        self._checkpoint = checkpoint
        self._carried = dict(carried or {})
        self._workers = workers or alone()

    def run(
        self,
        epochs: int,
        *,
        saved: Saved | None = None,
        validate: Callable[[], float] | None = None,
        epochs_between_looks: int = 1,
        finished: Callable[[EpochRecord], None] = lambda record: None,
    ) -> list[EpochRecord]:
        """Trains for some epochs, or until the validation part has had enough.

        Args:
            epochs: At most.
            saved: Where to go on, if it is of this phase.
            validate: Looks at the validation part; larger is better. None: all epochs.
            epochs_between_looks: How often.
            finished: Told of each epoch.

        Raises:
            CheckpointError: The workers do not see the same checkpoint.
            ValueError: The loss stopped being a number.
        """
        random = np.random.default_rng(self._config.seed)
        state = _State(order=random.bit_generator.state)
        if saved is not None and saved.phase == self._phase:
            state = self._restore(saved)
        if not self._workers.agree(state.epoch * self.batches + state.batch):
            raise CheckpointError(
                "the workers do not see the same checkpoint; put it where all of them can read "
                "it with --checkpoints, or start anew without --resume"
            )
        while state.epoch < epochs and (validate is None or state.since < self._config.patience):
            loss = self._epoch(state, random, epochs)
            value = None
            if validate is not None and (
                (state.epoch + 1) % epochs_between_looks == 0 or state.epoch + 1 == epochs
            ):
                # One number for all workers, so that they stop together.
                value = self._workers.mean(validate())
                better = value > state.best
                state.best, state.since = (value, 0) if better else (state.best, state.since + 1)
            state.epoch, state.batch, state.losses = state.epoch + 1, 0, []
            state.order = random.bit_generator.state
            state.records.append(EpochRecord(epoch=state.epoch, loss=loss, validation=value))
            finished(state.records[-1])
            self._save_if_due(state)
        return state.records

    def _epoch(self, state: _State, random: np.random.Generator, epochs: int) -> float:
        """The rest of one epoch; returns its mean loss."""
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
        looks = [one.validation for one in state.records if one.validation is not None]
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
                arrays=(variable.numpy() for variable in self._steps.variables()),
            )

    def _restore(self, saved: Saved) -> _State:
        for variable, value in zip(self._steps.variables(), saved.arrays, strict=True):
            variable.assign(value)
        records = [EpochRecord(**record) for record in saved.loop["records"]]
        state = _State(**{**saved.loop, "records": records})
        log.info("%s goes on in epoch %d", self._phase, state.epoch + 1)
        return state
