"""Judges recipes and baselines on one split, by the same metrics."""

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shortlist.export.config import PRESETS, ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.baselines import BASELINES, fit_baseline
from shortlist.export.evaluation.evaluate import (
    PROTOCOLS,
    Evaluation,
    evaluate,
    evaluate_popularity,
)
from shortlist.export.evaluation.model import judge_model
from shortlist.export.training.train import train

__all__ = [
    "ABLATIONS",
    "Judged",
    "Spread",
    "as_markdown",
    "compare",
    "judge_baseline",
    "judge_baselines",
    "judge_recipe",
]

log = logging.getLogger(__name__)

SHOWN_KS = (10, 100)

Recipe = tuple[ModelConfig, TrainConfig]

# What each part of the default recipe is worth: the recipe with that part changed.
ABLATIONS: Mapping[str, Mapping[str, object]] = {
    "cosines alone": {"inner_product_weight": 0.0},
    "no penalty on lengths": {"norm_penalty": 0.0},
    "no candidate features": {"candidate_features": False},
    "interactions weigh alike": {"activity_power": 1.0},
    "users weigh alike": {"activity_power": 0.0},
    "temperature 0.1": {"temperature": 0.1},
    "temperature 0.3": {"temperature": 0.3},
    "half the dimensions": {"embedding_dim": ModelConfig.embedding_dim // 2},
    "1,000 sampled negatives": {"sampled_candidates": 1000},
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model or a baseline with its metrics.

    Attributes:
        name: What it is called beside others.
        evaluation: Its metrics; None where it could not be judged.
        problem: Why it could not.
    """

    name: str
    evaluation: Evaluation | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A metric over several seeds.

    Attributes:
        mean: Of the seeds.
        deviation: Sample standard deviation; 0 for a single seed.
    """

    mean: float
    deviation: float


def judge_recipe(
    dataset: Dataset, split: Split, recipe: Recipe, *, resamples: int = 0
) -> Evaluation:
    """Trains by a recipe and measures it on the held-out part."""
    return judge_model(train(dataset, split, *recipe), dataset, split, resamples=resamples)


def judge_baseline(
    dataset: Dataset, split: Split, name: str, *, seed: int, resamples: int = 0
) -> Evaluation:
    """Fits a baseline and measures it on the held-out part."""
    if name == "popularity":  # needs no scores, and so is as good as free
        return evaluate_popularity(dataset, split, resamples=resamples)
    fitted = fit_baseline(name, dataset, split, seed=seed)
    return evaluate(fitted.scorer, dataset, split, resamples=resamples)


def judge_baselines(
    dataset: Dataset, split: Split, names: Sequence[str], *, seed: int, resamples: int = 0
) -> list[Judged]:
    """Judges several; one that is too large for the data or not installed says so instead."""
    judged = []
    for name in names:
        try:
            found = judge_baseline(dataset, split, name, seed=seed, resamples=resamples)
        except (ValueError, ModuleNotFoundError) as exc:
            log.warning("%s is left out: %s", name, exc)
            judged.append(Judged(name=name, evaluation=None, problem=str(exc)))
        else:
            judged.append(Judged(name=name, evaluation=found))
    return judged


def recipe_of(row: str) -> Recipe:
    """The recipe that a row of the table stands for: a preset, or one with a part changed.

    Raises:
        ValueError: There is no such row.
    """
    if row in PRESETS:
        return PRESETS[row]
    if row not in ABLATIONS:
        known = (*PRESETS, *BASELINES, *ABLATIONS)
        raise ValueError(f"no row {row!r}; choose from {', '.join(known)}")
    return replaced(PRESETS["default"], ABLATIONS[row])


def replaced(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
    """A recipe with some values of either configuration changed."""
    model, config = recipe
    of_model = {field.name for field in dataclasses.fields(model)}
    mine = {name: value for name, value in changes.items() if name in of_model}
    other = {name: value for name, value in changes.items() if name not in of_model}
    return (
        dataclasses.replace(model, **mine),  # type: ignore[arg-type]
        dataclasses.replace(config, **other),  # type: ignore[arg-type]
    )


def compare(
    dataset: Dataset,
    rows: Sequence[str],
    seeds: Sequence[int],
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Spread]]:
    """Metrics of presets, ablations and baselines over several seeds.

    A seed decides the split, the same for all rows, and the initial values. Nothing looks
    at the held-out part before its metrics are taken.

    Args:
        dataset: The interactions.
        rows: Names of presets, of `ABLATIONS` or of `BASELINES`.
        seeds: At least one.
        progress: Told of each row and seed that is done.

    Returns:
        By row: `<protocol> <metric>`, `seconds` (training and metrics), and, for recipes that
        predict ratings, `rmse` and `baseline rmse`.
    """
    recipes = {row: recipe_of(row) for row in rows if row not in BASELINES}
    values: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
    default = PRESETS["default"][1]
    for seed in seeds:
        split = make_split(
            dataset,
            method=default.split,
            held_out_fraction=default.held_out_fraction,
            validation_fraction=default.validation_fraction,
            seed=seed,
        )
        for row in rows:
            start = time.monotonic()
            if row in recipes:
                got = judge_recipe(dataset, split, replaced(recipes[row], {"seed": seed}))
            else:
                got = judge_baseline(dataset, split, row, seed=seed)
            took = time.monotonic() - start
            for name, value in _flat(got, took).items():
                values[row].setdefault(name, []).append(value)
            progress(f"seed {seed}, {row}: {took:.1f} s")
    return {
        row: {name: _spread(several) for name, several in found.items()}
        for row, found in values.items()
    }


def _flat(got: Evaluation, seconds: float) -> dict[str, float]:
    flat = {
        f"{protocol} {name}": value
        for protocol in PROTOCOLS
        for name, value in got.metrics[protocol].items()
    }
    if got.rating is not None:
        flat |= {"rmse": got.rating.rmse, "baseline rmse": got.rating.baseline_rmse}
    return {**flat, "seconds": seconds}


def _spread(values: Sequence[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(mean=statistics.fmean(values), deviation=deviation)


def as_markdown(table: Mapping[str, Mapping[str, Spread]]) -> str:
    """The hit rates of `compare` as a table, mean ± standard deviation over the seeds."""
    columns = [f"{protocol} hit_rate@{k}" for protocol in PROTOCOLS for k in SHOWN_KS]
    heads = [name.replace("_", " ") for name in columns]
    lines = [
        "| recipe | " + " | ".join(heads) + " | seconds |",
        "| --- |" + " ---: |" * (len(columns) + 1),
    ]
    for row, found in table.items():
        cells = [
            f"{found[name].mean:.4f} ± {found[name].deviation:.4f}" if name in found else "–"
            for name in columns
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {found['seconds'].mean:.1f} |")
    return "\n".join(lines)
