"""`shortlist bench warm`: warm starts on data that grows, compared with training from scratch."""

import argparse
import dataclasses
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from shortlist.clients.cli.output import number, progress, table, write, write_json
from shortlist.export.bench.machine import machine
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.config import DataConfig
from shortlist.export.data.dataset import Attribute, Dataset

if TYPE_CHECKING:
    from shortlist.export.towers.trained import TrainedModel
    from shortlist.export.training.states.warm_start import WarmStart

__all__ = ["Row", "run", "until"]

_Value = TypeVar("_Value", bound=np.generic)

_LISTED = 10  # candidates of the lists that are compared


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training.

    Attributes:
        seed: Random seed.
        day: Day, from 0.
        start: `cold` or `warm`.
        interactions: Interactions of the data on that day.
        seconds: Duration of the training, processor time of all threads.
        validation: Best NDCG@100 on the validation part.
        hit_rate: Hit rate@10 on the held-out part, seen candidates excluded.
        ndcg: NDCG@100 on it.
        overlap: Share of the candidates of a user's first ten that were in those of the day
            before, mean over users; None on day 0.
        cosine: Mean cosine of a candidate's embedding with that of the day before.
    """

    seed: int
    day: int
    start: str
    interactions: int
    seconds: float
    validation: float
    hit_rate: float
    ndcg: float
    overlap: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Day:
    dataset: Dataset
    model: "TrainedModel"


def run(args: argparse.Namespace, source: DataConfig) -> int:
    """Measure and print.

    Raises:
        ValueError: An option is out of range, or the data has no times.
    """
    for name in ("days", "seeds", "cold_every"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
    if not args.growth > 0 or args.share * (1 + args.growth) ** args.days > 1:
        raise ValueError(
            f"--share {args.share:g} grown by {args.growth:g} a day for {args.days} days is more "
            "than the data; lower one of them"
        )
    from shortlist.export.data import load

    dataset = load(source)
    if dataset.timestamps is None:
        raise ValueError(f"{dataset.name} has no times to cut it by; choose other data")
    rows: list[Row] = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        rows += _grow(dataset, args, TrainConfig(seed=seed, epochs=args.epochs))
    if args.json:
        write_json({"machine": machine(), "rows": [asdict(row) for row in rows]})
    else:
        write(f"{dataset.name}, on {machine()}\n\n{_table(rows)}")
    return 0


def until(dataset: Dataset, count: int) -> Dataset:
    """Return the first interactions of the data by time, with their users and candidates alone."""
    assert dataset.timestamps is not None
    first = np.sort(np.argsort(dataset.timestamps, kind="stable")[:count])
    users, user_positions = np.unique(dataset.user_positions[first], return_inverse=True)
    candidates, positions = np.unique(dataset.candidate_positions[first], return_inverse=True)

    def kept(values: npt.NDArray[_Value] | None) -> npt.NDArray[_Value] | None:
        return None if values is None else values[first]

    def some(attribute: Attribute, rows: npt.NDArray[np.integer]) -> Attribute:
        if attribute.values is None:
            assert attribute.numbers is not None
            return Attribute(numbers=attribute.numbers[rows])
        return Attribute(values=tuple(attribute.values[row] for row in rows.tolist()))

    return dataclasses.replace(
        dataset,
        user_ids=tuple(dataset.user_ids[row] for row in users.tolist()),
        candidate_ids=tuple(dataset.candidate_ids[row] for row in candidates.tolist()),
        titles=tuple(dataset.titles[row] for row in candidates.tolist()),
        user_positions=user_positions.astype(np.int32),
        candidate_positions=positions.astype(np.int32),
        ratings=kept(dataset.ratings),
        timestamps=kept(dataset.timestamps),
        weights=kept(dataset.weights),
        attributes={name: some(values, candidates) for name, values in dataset.attributes.items()},
        words={name: some(values, candidates) for name, values in dataset.words.items()},
        user_attributes={
            name: some(values, users) for name, values in dataset.user_attributes.items()
        },
        context={
            name: dataclasses.replace(values, codes=values.codes[first])
            for name, values in dataset.context.items()
        },
    )


def _grow(dataset: Dataset, args: argparse.Namespace, config: TrainConfig) -> list[Row]:
    rows, before, parent = list[Row](), None, None
    with tempfile.TemporaryDirectory(prefix="shortlist-") as folder:
        for day in range(args.days + 1):
            count = int(dataset.num_interactions * args.share * (1 + args.growth) ** day)
            data = until(dataset, count)
            if day == 1 or (day > 1 and day % args.cold_every == 0):
                row, _, _ = _train(data, config, day, None, None, before)
                rows.append(row)
            row, after, parent = _train(data, config, day, parent, Path(folder) / str(day), before)
            rows.append(row)
            before = after
    return rows


def _train(
    dataset: Dataset,
    config: TrainConfig,
    day: int,
    warm_start: "WarmStart | None",
    state: Path | None,
    before: _Day | None,
) -> "tuple[Row, _Day, WarmStart | None]":
    """Train and judge; return the row, the model, and what the next day starts from."""
    from shortlist.export.data.split import configured_split
    from shortlist.export.evaluation.judge import judge_model
    from shortlist.export.servable.self_test import sample_users
    from shortlist.export.training.states.warm_start import WarmStart
    from shortlist.export.training.train import train

    start = "cold" if warm_start is None else "warm"
    split = configured_split(dataset, config)
    began = time.process_time()
    model = train(dataset, split, ModelConfig(), config, warm_start=warm_start, state=state)
    seconds = time.process_time() - began
    metrics = judge_model(model, dataset, split, resamples=1).metrics["seen_excluded"]
    looks = [record.validation for record in model.records if record.validation is not None]
    own = _Day(dataset=dataset, model=model)
    overlap, cosine = (None, None) if before is None else _compared(own, before)
    row = Row(
        seed=config.seed,
        day=day,
        start=start,
        interactions=dataset.num_interactions,
        seconds=seconds,
        validation=max(looks, default=0.0),
        hit_rate=metrics["hit_rate@10"],
        ndcg=metrics["ndcg@100"],
        overlap=overlap,
        cosine=cosine,
    )
    progress(
        f"seed {config.seed}, day {day}, {start}: {seconds:.0f} s, {model.epochs} epochs, "
        f"validation {row.validation:.4f}, hit rate@10 {row.hit_rate:.4f}, "
        f"NDCG@100 {row.ndcg:.4f}, overlap {number(overlap, '.2f', unknown='')}"
    )
    if state is None:
        return row, own, None
    parent = WarmStart(
        name=f"day {day}",
        version=day,
        folder=state,
        settings={"feature_share": None, **model.settings},
        split={**asdict(config), "split": split.method},
        sample=sample_users(dataset, split),
        corpus=list(dataset.candidate_ids),
    )
    return row, own, parent


def _compared(own: _Day, before: _Day) -> tuple[float, float]:
    """Mean overlap of the users' lists, and mean cosine of the candidates' embeddings."""
    from shortlist.export.training.states.state import Rows

    users = Rows.matched(before.dataset.user_ids, own.dataset.user_ids)
    candidates = Rows.matched(before.dataset.candidate_ids, own.dataset.candidate_ids)
    lists, tables = [], []
    for day, of_users, of_candidates in (
        (own, users.places, candidates.places),
        (before, users.earlier, candidates.earlier),
    ):
        tables.append(day.model.candidate_embeddings[of_candidates])
        scores = day.model.embed_users(of_users) @ tables[-1].T
        lists.append(np.argpartition(-scores, _LISTED, axis=1)[:, :_LISTED])
    common = [len(set(a) & set(b)) for a, b in zip(*map(np.ndarray.tolist, lists), strict=True)]
    cosine = float("nan")
    if tables[0].shape == tables[1].shape:
        lengths = np.linalg.norm(tables[0], axis=1) * np.linalg.norm(tables[1], axis=1)
        cosine = float((np.einsum("nd,nd->n", *tables) / np.maximum(lengths, 1e-9)).mean())
    return float(np.mean(common)) / _LISTED, cosine


def _table(rows: list[Row]) -> str:
    lines = [
        [
            *("seed", "day", "start", "interactions", "CPU s", "validation", "hit rate@10"),
            *("NDCG@100", "overlap@10", "cosine"),
        ]
    ]
    for row in rows:
        lines.append(
            [str(row.seed), str(row.day), row.start, f"{row.interactions:,}", f"{row.seconds:.0f}"]
            + [f"{value:.4f}" for value in (row.validation, row.hit_rate, row.ndcg)]
            + [number(value, ".2f", unknown="") for value in (row.overlap, row.cosine)]
        )
    return table(lines, markdown=True)
