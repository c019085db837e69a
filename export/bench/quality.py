"""Compares recipes and baselines on the same splits, by the same metrics."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shortlist.clients.cli.output import table
from shortlist.export.config import PRESETS, PROTOCOLS, ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import configured_split
from shortlist.export.evaluation.baselines import BASELINES
from shortlist.export.evaluation.evaluate import Evaluation
from shortlist.export.evaluation.judge import judge_baseline, judge_model
from shortlist.export.training.train import train

__all__ = ["ABLATIONS", "Spread", "as_markdown", "compare", "recipe_of"]

SHOWN_KS = (10, 100)

Recipe = tuple[ModelConfig, TrainConfig]

# The default recipe with one part changed, to measure its effect.
ABLATIONS: Mapping[str, Mapping[str, object]] = {
    "cosines alone": {"inner_product_weight": 0.0},
    "no penalty on lengths": {"norm_penalty": 0.0},
    "no candidate features": {"candidate_features": False},
    "interactions weighted equally": {"activity_power": 1.0},
    "users weighted equally": {"activity_power": 0.0},
    "temperature 0.1": {"temperature": 0.1},
    "temperature 0.3": {"temperature": 0.3},
    "half the dimensions": {"embedding_dim": ModelConfig.embedding_dim // 2},
    "1,000 sampled negatives": {"sampled_candidates": 1000},
}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A metric over several seeds.

    Attributes:
        mean: Mean over the seeds.
        deviation: Sample standard deviation; 0 for a single seed.
    """

    mean: float
    deviation: float


def recipe_of(row: str) -> Recipe:
    """Return the recipe of a table row: a preset, or the default with one part changed.

    Raises:
        ValueError: The row is unknown.
    """
    if row in PRESETS:
        return PRESETS[row]
    if row not in ABLATIONS:
        known = (*PRESETS, *BASELINES, *ABLATIONS)
        raise ValueError(f"unknown row {row!r}; choose from {', '.join(known)}")
    return _replace(PRESETS["default"], ABLATIONS[row])


def _replace(recipe: Recipe, changes: Mapping[str, object]) -> Recipe:
    """Return a recipe with some values of either configuration changed."""
    towers, config = recipe
    names = {field.name for field in dataclasses.fields(towers)}
    tower_changes = {name: value for name, value in changes.items() if name in names}
    train_changes = {name: value for name, value in changes.items() if name not in names}
    return (
        dataclasses.replace(towers, **tower_changes),  # type: ignore[arg-type]
        dataclasses.replace(config, **train_changes),  # type: ignore[arg-type]
    )


def compare(
    dataset: Dataset,
    rows: Sequence[str],
    seeds: Sequence[int],
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, Spread]]:
    """Metrics of presets, ablations and baselines over several seeds.

    A seed decides the split, which all rows share, and the initial values. The held-out part
    is used only for the final metrics.

    Args:
        dataset: Interactions.
        rows: Names from `PRESETS`, `ABLATIONS` or `BASELINES`.
        seeds: Random seeds, at least one.
        progress: Callback, called with one line per finished row and seed.

    Returns:
        By row: `<protocol> <metric>`, `seconds` (training and metrics), and, for recipes that
        predict ratings, `rmse` and `baseline rmse`.
    """
    recipes = {row: recipe_of(row) for row in rows if row not in BASELINES}
    values: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
    for seed in seeds:
        split = configured_split(dataset, dataclasses.replace(PRESETS["default"][1], seed=seed))
        for row in rows:
            start = time.monotonic()
            if row in recipes:
                model = train(dataset, split, *_replace(recipes[row], {"seed": seed}))
                evaluation = judge_model(model, dataset, split)
            else:
                evaluation = judge_baseline(dataset, split, row, seed=seed)
            seconds = time.monotonic() - start
            for name, value in _flat(evaluation, seconds).items():
                values[row].setdefault(name, []).append(value)
            progress(f"seed {seed}, {row}: {seconds:.1f} s")
    return {
        row: {name: _spread(per_seed) for name, per_seed in metrics.items()}
        for row, metrics in values.items()
    }


def _flat(evaluation: Evaluation, seconds: float) -> dict[str, float]:
    flat = {
        f"{protocol} {name}": value
        for protocol in PROTOCOLS
        for name, value in evaluation.metrics[protocol].items()
    }
    if evaluation.rating is not None:
        flat |= {"rmse": evaluation.rating.rmse, "baseline rmse": evaluation.rating.baseline_rmse}
    return {**flat, "seconds": seconds}


def _spread(values: Sequence[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(mean=statistics.fmean(values), deviation=deviation)


def as_markdown(spreads: Mapping[str, Mapping[str, Spread]]) -> str:
    """Hit rates of `compare` as a Markdown table: mean ± standard deviation over the seeds."""
    columns = [f"{protocol} hit_rate@{k}" for protocol in PROTOCOLS for k in SHOWN_KS]
    heads = [name.replace("_", " ") for name in columns]
    rows = [["recipe", *heads, "seconds"]]
    for recipe, metrics in spreads.items():
        cells = [
            f"{metrics[name].mean:.4f} ± {metrics[name].deviation:.4f}" if name in metrics else "–"
            for name in columns
        ]
        rows.append([recipe, *cells, f"{metrics['seconds'].mean:.1f}"])
    return table(rows, markdown=True)
