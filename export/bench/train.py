"""`shortlist bench train`: interactions per second of training."""

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from shortlist.export.bench.machine import machine
from shortlist.export.config import PRESETS
from shortlist.export.data.options import add_data_arguments, data_config

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.data.split import Split

__all__ = ["Row", "add_arguments", "run"]

TUTORIAL = "TFRS tutorial"


@dataclass(frozen=True, kw_only=True)
class Row:
    """How fast one recipe trains.

    Attributes:
        recipe: A preset, or what TFRS's tutorial writes.
        interactions: Trained on while it was measured, each as often as it was.
        seconds: That took, without what comes once: the first epoch, which traces and
            fills caches; on made data the first batches.
        first_epoch_seconds: That epoch or those batches.
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `bench train`; imports nothing heavy."""
    add_data_arguments(parser, default="sample")
    for option, kind, default, text in (
        ("--epochs", int, 3, "epochs of TFRS's tutorial"),
        ("--seconds", float, 10.0, "for each of our recipes, at least; on made data, in all"),
    ):
        parser.add_argument(
            option, type=kind, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    group = parser.add_argument_group("made data")
    group.add_argument("--interactions", type=int, metavar="N", help="such as 25000000")
    group.add_argument("--corpus-size", type=int, metavar="N", help="such as 1000000")
    group.add_argument("--users", type=int, metavar="N", help="(default: one per 100 interactions)")
    group.add_argument(
        "--batch-size",
        type=int,
        default=PRESETS["default"][1].batch_size,
        metavar="N",
        help="users per step (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures and prints.

    Raises:
        ValueError: An option is out of range.
    """
    for name in ("epochs", "seconds", "interactions", "corpus_size", "users", "batch_size"):
        value = getattr(args, name)
        least = 2 if name == "epochs" else 1
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if (args.interactions is None) != (args.corpus_size is None):
        raise ValueError("--interactions and --corpus-size go together")
    made = args.interactions is not None
    rows = [_on_made_data(args)] if made else _beside_tfrs(args)
    base = next((row.rate for row in rows if row.recipe == TUTORIAL), None)
    if args.json:
        found = [
            {**asdict(row), "interactions_per_second": row.rate}
            | ({} if base is None else {"times_tutorial": row.rate / base})
            for row in rows
        ]
        sys.stdout.write(json.dumps({"machine": machine(), "rows": found}, indent=2) + "\n")
    else:
        sys.stdout.write(_table(rows, base))
    return 0


def _beside_tfrs(args: argparse.Namespace) -> list[Row]:
    source = data_config(args, source="sample")
    from shortlist.export.bench.tfrs_tutorial import train_tutorial
    from shortlist.export.data import load
    from shortlist.export.data.split import random_split

    dataset = load(source)
    split = random_split(dataset, held_out_fraction=0.2, seed=42)
    rows = []
    for name, metrics in ((TUTORIAL, True), (f"{TUTORIAL} without metrics", False)):
        _say(f"{name}: {len(split.fitted)} interactions, {args.epochs} epochs")
        seconds = train_tutorial(dataset, split, epochs=args.epochs, metrics=metrics)
        rows.append(
            Row(
                recipe=name,
                interactions=len(split.fitted) * (args.epochs - 1),
                seconds=sum(seconds[1:]),
                first_epoch_seconds=seconds[0],
                peak_memory_bytes=_peak_memory_bytes(),
            )
        )
    for preset in ("tutorial", "default"):
        _say(f"preset {preset}: {args.seconds:g} s")
        rows.append(_measure(dataset, split, preset, seconds=args.seconds))
    return rows


def _on_made_data(args: argparse.Namespace) -> Row:
    from shortlist.export.bench.interactions import make_interactions
    from shortlist.export.data.split import random_split

    start = time.monotonic()
    dataset = make_interactions(
        num_users=args.users or max(1, args.interactions // 100),
        num_candidates=args.corpus_size,
        num_interactions=args.interactions,
        seed=42,
    )
    split = random_split(dataset, held_out_fraction=0.2, seed=42, validation_fraction=0.1)
    _say(f"made {dataset.num_interactions} interactions in {time.monotonic() - start:.0f} s")
    return _measure(
        dataset, split, "default", seconds=args.seconds, batch_size=args.batch_size, warm_up=10
    )


def _measure(
    dataset: "Dataset",
    split: "Split",
    preset: str,
    *,
    seconds: float,
    batch_size: int | None = None,
    warm_up: int | None = None,
) -> Row:
    """Trains for a while.

    Args:
        dataset: The interactions.
        split: All but the held-out ones are trained on.
        preset: Recipe.
        seconds: For how long.
        batch_size: Instead of the preset's.
        warm_up: Batches that do not count; None for the first epoch.
    """
    from shortlist.export.bench.stopwatch import Enough, Stopwatch
    from shortlist.export.training.in_batch_softmax import InBatchSteps
    from shortlist.export.training.user_training import UserSteps

    model_config, config = PRESETS[preset]
    config = dataclasses.replace(config, batch_size=batch_size or config.batch_size)
    watch = Stopwatch(seconds, warm_up=warm_up)
    make = UserSteps.of_data if config.loss == "user_softmax" else InBatchSteps
    steps = make(dataset, split.fitted, model_config, config)
    loop = steps.loop(watch, "fit", None)
    watch.start(loop.batches)
    try:
        loop.run(1_000_000_000)
    except Enough:
        _say(f"stopped after {watch.batches} batches")
    return Row(
        recipe=preset,
        interactions=watch.interactions,
        seconds=watch.seconds,
        first_epoch_seconds=watch.first_seconds,
        peak_memory_bytes=_peak_memory_bytes(),
    )


def _table(rows: list[Row], base: float | None) -> str:
    lines = [
        f"on {machine()}",
        "",
        "| recipe | interactions/s | times the tutorial | peak memory GB |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        times = "" if base is None else f"{row.rate / base:.1f}"
        memory = row.peak_memory_bytes / 1e9
        lines.append(f"| {row.recipe} | {row.rate:,.0f} | {times} | {memory:.2f} |")
    return "\n".join(lines) + "\n"


def _peak_memory_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
