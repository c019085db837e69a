"""Compares recipes and baselines on the same splits, by the same metrics."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shortlist.clients.cli.output import table
from shortlist.clients.cli.progress import tracked
from shortlist.export.bench.machine import machine
from shortlist.export.config import PRESETS, ModelConfig, Protocol, SplitMethod, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import dataset_facts
from shortlist.export.data.split import configured_split
from shortlist.export.evaluation.baselines import BASELINES
from shortlist.export.evaluation.evaluate import KS, Evaluation
from shortlist.export.evaluation.held_out import HeldOut, held_out_facts
from shortlist.export.evaluation.judge import Judged, judge_baselines, judge_model
from shortlist.export.evaluation.metrics import USER_METRICS
from shortlist.export.training.train import train
from shortlist.serving.repository.version import DatasetFacts

__all__ = [
    "ABLATIONS",
    "SHOWN_KS",
    "Comparison",
    "Spread",
    "as_markdown",
    "compare",
    "recipe_of",
    "spread_of",
]

SHOWN_KS = (10, 100)

Recipe = tuple[ModelConfig, TrainConfig]

# A preset with one part changed, to measure its effect.
ABLATIONS: Mapping[str, Mapping[str, object]] = {
    "no order": {"order_dimension": 0},
    "no linear part": {"linear_dimension": 0},
    "taste alone": {"order_dimension": 0, "linear_dimension": 0},
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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Metrics of several rows on the same splits.

    Attributes:
        data: Data of all rows.
        split: Method of the split.
        seeds: Random seeds.
        held_out: Size of the held-out part, by seed.
        machine: Processor and number of cores.
        rows: By row: `<protocol> <metric>`, `seconds` (training and metrics), and, for recipes
            that predict ratings, `rmse` and `baseline rmse`.
        omitted: By row that could not be measured, the reason.
    """

    data: DatasetFacts
    split: SplitMethod
    seeds: Sequence[int]
    held_out: Mapping[int, HeldOut]
    machine: str
    rows: Mapping[str, Mapping[str, Spread]]
    omitted: Mapping[str, str]


def recipe_of(row: str, *, base: str = "default") -> Recipe:
    """Return the recipe of a table row: a preset, or the base with one part changed.

    Raises:
        ValueError: The row is unknown.
    """
    if row in PRESETS:
        return PRESETS[row]
    if row not in ABLATIONS:
        known = (*PRESETS, *BASELINES, *ABLATIONS)
        raise ValueError(f"unknown row {row!r}; choose from {', '.join(known)}")
    return _replace(PRESETS[base], ABLATIONS[row])


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
    base: str = "default",
    method: SplitMethod | None = None,
    protocol: Protocol = "seen_excluded",
    ks: Sequence[int] = KS,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure presets, ablations and baselines over several seeds.

    A seed decides the split, which all rows share, and the initial values. The held-out part
    is used only for the final metrics.

    Args:
        dataset: Interactions.
        rows: Names from `PRESETS`, `ABLATIONS` or `BASELINES`.
        seeds: Random seeds, at least one.
        base: Preset that ablations change.
        method: Method of the split; None for the default for the data.
        protocol: Protocol of the headline metric in the progress.
        ks: Cut-offs.
        progress: Callback, called with one line per finished row and seed.

    Raises:
        ValueError: A row is unknown, or the data cannot be split like that.
    """
    recipes = {row: recipe_of(row, base=base) for row in rows if row not in BASELINES}
    values: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
    omitted: dict[str, str] = {}
    held_out = {}
    for seed in tracked(seeds, "quality"):
        config = dataclasses.replace(PRESETS[base][1], seed=seed, split=method)
        split = configured_split(dataset, config)
        held_out[seed] = held_out_facts(dataset, split)
        held_out[seed].check(protocol)
        left = [row for row in rows if row not in omitted]
        for row in tracked(left, f"seed {seed}"):
            start = time.monotonic()
            if row in recipes:
                model = train(dataset, split, *_replace(recipes[row], {"seed": seed}))
                judged = Judged(name=row, evaluation=judge_model(model, dataset, split, ks=ks))
            else:
                judged = judge_baselines(dataset, split, [row], seed=seed, ks=ks)[0]
            seconds = time.monotonic() - start
            if judged.evaluation is None:
                omitted[row] = judged.problem
                progress(f"seed {seed}, {row}: omitted: {judged.problem}")
                continue
            for name, value in _flat(judged.evaluation, seconds).items():
                values[row].setdefault(name, []).append(value)
            headline = judged.evaluation.headline(protocol)
            progress(f"seed {seed}, {row}: {headline}, {seconds:.1f} s")
    return Comparison(
        data=dataset_facts(dataset),
        split=split.method,
        seeds=list(seeds),
        held_out=held_out,
        machine=machine(),
        rows={
            row: {name: spread_of(per_seed) for name, per_seed in metrics.items()}
            for row, metrics in values.items()
            if row not in omitted
        },
        omitted=omitted,
    )


def _flat(evaluation: Evaluation, seconds: float) -> dict[str, float]:
    flat = {
        f"{protocol} {name}": value
        for protocol, metrics in evaluation.metrics.items()
        for name, value in metrics.items()
    }
    if evaluation.rating is not None:
        flat |= {"rmse": evaluation.rating.rmse, "baseline rmse": evaluation.rating.baseline_rmse}
    return {**flat, "seconds": seconds}


def spread_of(values: Sequence[float]) -> Spread:
    """Return mean and deviation of a metric's values, one for each seed."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(mean=statistics.fmean(values), deviation=deviation)


def as_markdown(
    comparison: Comparison,
    *,
    protocols: Sequence[Protocol] = ("seen_excluded", "seen_kept"),
    ks: Sequence[int] = SHOWN_KS,
    metrics: Sequence[str] = ("hit_rate",),
) -> str:
    """Return a Markdown table, mean ± standard deviation over the seeds, under what it is of."""
    names = [f"{metric}@{k}" for metric in metrics for k in ks]
    if comparison.split == "new_users":
        names += USER_METRICS
    columns = [f"{protocol} {name}" for protocol in protocols for name in names]
    heads = [name.replace("_", " ") for name in columns]
    lines = [["recipe", *heads, "seconds"]]
    for row, values in comparison.rows.items():
        cells = [
            f"{values[name].mean:.4f} ± {values[name].deviation:.4f}" if name in values else "–"
            for name in columns
        ]
        lines.append([row, *cells, f"{values['seconds'].mean:.1f}"])
    notes = [f"{row} is omitted: {reason}" for row, reason in comparison.omitted.items()]
    return "\n\n".join([_heading(comparison), table(lines, markdown=True), *notes])


def _heading(comparison: Comparison) -> str:
    """Return a sentence on data, split, seeds and machine."""
    data, held_out = comparison.data, list(comparison.held_out.values())
    seeds = ", ".join(map(str, comparison.seeds))
    counts = f"{_range([part.interactions for part in held_out])} interactions held out"
    if held_out[0].as_served:
        counts += ", asked as served"
    if any(part.repeats for part in held_out):
        repeats = _range([part.repeats for part in held_out])
        counts += f", {repeats} of them repeats, which seen excluded does not count"
    return (
        f"{data.name}: {data.interactions:,} interactions of {data.users:,} users with "
        f"{data.candidates:,} candidates, fingerprint {data.fingerprint}; split "
        f"{comparison.split}, seeds {seeds}: {counts}; {comparison.machine}."
    )


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
