"""`shortlist bench train`: interactions per second of training."""

import argparse
import contextlib
import dataclasses
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from shortlist.clients.cli.output import number, progress, table, write, write_json
from shortlist.clients.cli.progress import tracked
from shortlist.export.bench.machine import machine, peak_bytes
from shortlist.export.config import PRESETS
from shortlist.export.data.config import DataConfig
from shortlist.export.progress import Progress, TrainingState

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.data.split import Split

__all__ = ["Row", "run"]

TUTORIAL: Final = "TFRS tutorial"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Training speed of one recipe.

    Attributes:
        recipe: Preset, or the tutorial of TFRS.
        interactions: Interactions trained on during the measurement, repetitions included.
        seconds: Duration of the measurement, without the warm-up: the first epoch, which traces
            and fills caches, or the first batches of synthetic data.
        first_epoch_seconds: Duration of the warm-up.
        peak_memory_bytes: Largest resident size of the process so far.
    """

    recipe: str
    interactions: int
    seconds: float
    first_epoch_seconds: float
    peak_memory_bytes: int

    @property
    def rate(self) -> float:
        """Interactions per second."""
        return self.interactions / self.seconds


def run(args: argparse.Namespace, source: DataConfig) -> int:
    """Measure and print.

    Raises:
        ValueError: An option is out of range.
    """
    for name in ("epochs", "seconds", "interactions", "corpus_size", "num_users", "batch_size"):
        value = getattr(args, name)
        least = 2 if name == "epochs" else 1
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if (args.interactions is None) != (args.corpus_size is None):
        raise ValueError("--interactions and --corpus-size go together")
    if args.interactions is None:
        rows = _compared_with_tfrs(args, source)
    else:
        rows = _on_synthetic_data(args)
    base = next((row.rate for row in rows if row.recipe == TUTORIAL), None)
    if args.json:
        results = [
            {**asdict(row), "interactions_per_second": row.rate}
            | ({} if base is None else {"times_tutorial": row.rate / base})
            for row in rows
        ]
        write_json({"machine": machine(), "rows": results})
    else:
        write(_table(rows, base))
    return 0


def _compared_with_tfrs(args: argparse.Namespace, source: DataConfig) -> list[Row]:
    from shortlist.export.bench.tfrs_tutorial import train_tutorial
    from shortlist.export.data import load
    from shortlist.export.data.split import make_split

    dataset = load(source)
    split = make_split(dataset, held_out_fraction=0.2, seed=42)
    rows = []
    for name, metrics in ((TUTORIAL, True), (f"{TUTORIAL} without metrics", False)):
        progress(f"{name}: {len(split.fitted)} interactions, {args.epochs} epochs")
        seconds = train_tutorial(dataset, split, epochs=args.epochs, metrics=metrics)
        rows.append(
            Row(
                recipe=name,
                interactions=len(split.fitted) * (args.epochs - 1),
                seconds=sum(seconds[1:]),
                first_epoch_seconds=seconds[0],
                peak_memory_bytes=peak_bytes(),
            )
        )
    for preset in tracked(("tutorial", "default"), "presets"):
        progress(f"preset {preset}: {args.seconds:g} s")
        rows.append(_measure(dataset, split, preset, seconds=args.seconds))
    return rows


def _on_synthetic_data(args: argparse.Namespace) -> list[Row]:
    from shortlist.export.bench.synthetic import make_interactions
    from shortlist.export.data.split import make_split

    start = time.monotonic()
    dataset = make_interactions(
        num_users=args.num_users or max(1, args.interactions // 100),
        num_candidates=args.corpus_size,
        num_interactions=args.interactions,
        seed=42,
    )
    split = make_split(dataset, held_out_fraction=0.2, seed=42, validation_fraction=0.1)
    progress(f"generated {dataset.num_interactions} interactions, {time.monotonic() - start:.0f} s")
    taste = _measure(
        dataset, split, "default", seconds=args.seconds, batch_size=args.batch_size, warm_up=10
    )
    return [taste, _measure_order(dataset, split, seconds=args.seconds)]


def _measure_order(dataset: "Dataset", split: "Split", *, seconds: float) -> Row:
    """Train the default recipe's order part for a while."""
    import numpy as np

    from shortlist.export.data.histories import Histories
    from shortlist.export.training.order import order_epochs, train_order

    model_config, config = PRESETS["default"]
    watch = _Stopwatch(seconds, warm_up=10)
    random = np.random.default_rng(42)
    shape = len(dataset.candidate_ids), model_config.embedding_dim
    watch.start(0)
    with contextlib.suppress(_Enough):
        train_order(
            Histories.of_users(dataset, split.fitted),
            random.standard_normal(shape, np.float32),
            config,
            dimension=model_config.order_dimension,
            epochs=order_epochs(len(split.fitted)),
            progress=watch,
            phase="fit, order",
        )
    progress(f"order: stopped after {watch.batches} batches")
    return watch.row("default, order")


def _measure(
    dataset: "Dataset",
    split: "Split",
    preset: str,
    *,
    seconds: float,
    batch_size: int | None = None,
    warm_up: int | None = None,
) -> Row:
    """Train for a while.

    Args:
        dataset: Interactions.
        split: Training uses all but the held-out interactions.
        preset: Recipe.
        seconds: Duration of the measurement.
        batch_size: Batch size instead of the preset's.
        warm_up: Batches that do not count; `None` for the first epoch.
    """
    from shortlist.export.data.pairs import Pairs
    from shortlist.export.training.in_batch_softmax import InBatchSteps
    from shortlist.export.training.user_training import UserSteps

    model_config, config = PRESETS[preset]
    config = dataclasses.replace(config, batch_size=batch_size or config.batch_size)
    watch = _Stopwatch(seconds, warm_up=warm_up)
    steps: UserSteps | InBatchSteps
    if config.loss == "user_softmax":
        rows = Pairs.by_user(dataset, split.fitted)
        steps = UserSteps.of_data(dataset, rows, model_config, config)
    else:
        steps = InBatchSteps(dataset, split.fitted, model_config, config)
    loop = steps.loop(watch, "fit", None)
    watch.start(loop.batches)
    try:
        loop.run(1_000_000_000)
    except _Enough:
        progress(f"stopped after {watch.batches} batches")
    return watch.row(preset)


def _table(rows: list[Row], base: float | None) -> str:
    lines = [["recipe", "interactions/s", "times the tutorial", "peak memory GB"]]
    for row in rows:
        times = number(None if base is None else row.rate / base, ".1f", unknown="")
        memory = f"{row.peak_memory_bytes / 1e9:.2f}"
        lines.append([row.recipe, f"{row.rate:,.0f}", times, memory])
    return f"on {machine()}\n\n{table(lines, markdown=True)}"


class _Enough(Exception):  # noqa: N818 - not an error: the measurement is done
    """The training has been measured for long enough."""


class _Stopwatch(Progress):
    """Counts interactions and seconds after a warm-up, then ends the training.

    Attributes:
        batches: All batches so far.
        first_seconds: Duration of the warm-up.
        interactions: Interactions after the warm-up.
        seconds: Time after the warm-up.
    """

    def __init__(self, seconds: float, *, warm_up: int | None) -> None:
        self._limit = seconds
        self._warm_up = warm_up
        self._before: tuple[float, int] | None = None
        self.batches = self.interactions = 0
        self.seconds = self.first_seconds = 0.0

    def start(self, batches_per_epoch: int) -> None:
        """Start counting; `batches_per_epoch` is the default warm-up."""
        if self._warm_up is None:
            self._warm_up = batches_per_epoch
        self._began = time.monotonic()

    def batches_done(self, state: TrainingState) -> None:
        """Take the time; raise `_Enough` at the end."""
        now = time.monotonic()
        self.batches = state.done
        if self._before is None:
            assert self._warm_up is not None
            if state.done >= self._warm_up:
                self._before = now, state.interactions
                self.first_seconds = now - self._began
            return
        self.seconds = now - self._before[0]
        self.interactions = state.interactions - self._before[1]
        if self.seconds >= self._limit:
            raise _Enough

    def row(self, recipe: str) -> Row:
        """Return what has been measured."""
        return Row(
            recipe=recipe,
            interactions=self.interactions,
            seconds=self.seconds,
            first_epoch_seconds=self.first_seconds,
            peak_memory_bytes=peak_bytes(),
        )
