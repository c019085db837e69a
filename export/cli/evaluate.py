"""`shortlist evaluate`."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.output import number, progress, table, write, write_json
from shortlist.export.cli.options import data_config
from shortlist.export.cli.options.run_config import RunConfig, as_toml, check_output, run_config
from shortlist.export.cli.summary import extra_metrics, headline_lines, protocols_of
from shortlist.export.config import BASELINES, TrainConfig
from shortlist.export.data.config import DataConfig
from shortlist.export.progress import StepTimer
from shortlist.serving.repository.reference import find_version

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.data.split import Split
    from shortlist.export.evaluation.judge import Judged
    from shortlist.export.evaluation.published import PublishedVersion

__all__ = ["evaluate"]

Rows = dict[str, dict[str, Any]]  # by model: data, split and metrics, as JSON


def evaluate(args: argparse.Namespace) -> int:
    """Measure a recipe or published versions on held-out interactions."""
    settings = run_config(args)
    if args.print_config:
        write(as_toml(settings))
        return 0
    _check_report(args)
    from shortlist.export.cli.console import ConsoleProgress

    measure = _evaluate_versions if args.version_dir else _evaluate_recipe
    with ConsoleProgress() as console:
        rows = measure(args, settings, StepTimer(console))
    if args.json:
        write_json(rows)
    else:
        write(_as_text(rows, details=args.details))
    return 0


def _check_report(args: argparse.Namespace) -> None:
    """Reject a report that cannot be written, before training."""
    path: Path | None = args.report
    if path is None:
        return
    if args.version_dir:
        raise ValueError(
            "--report needs a training run; published versions already contain "
            "assets.extra/report.html"
        )
    check_output(path, "--report")


def _evaluate_recipe(args: argparse.Namespace, settings: RunConfig, timer: StepTimer) -> Rows:
    from shortlist.export.data import load
    from shortlist.export.pipeline import train_and_judge

    dataset = load(settings.data)
    names = BASELINES if args.baselines else BASELINES[:1] if args.report else ()
    trained = train_and_judge(
        dataset, settings.export, timer=timer, baselines=names, resamples=args.resamples
    )
    judged = [dataclasses.replace(trained.judged[0], name=settings.preset), *trained.judged[1:]]
    if args.report is not None:
        from shortlist.export.report.publication import evaluation_report, write_report

        report = evaluation_report(
            dataset=dataset,
            split=trained.split,
            model=trained.model,
            judged=judged,
            config=settings.export,
        )
        write_report(args.report, report)
        progress(f"report: {args.report}")
    return _rows(judged, dataset, settings.export.train, trained.split)


def _evaluate_versions(args: argparse.Namespace, settings: RunConfig, timer: StepTimer) -> Rows:
    """Query published versions instead of training."""
    from shortlist.export.data import load
    from shortlist.export.evaluation.judge import Judged
    from shortlist.export.evaluation.published import PublishedVersion, evaluate_version, split_of
    from shortlist.export.pipeline import baseline_steps

    versions = [
        PublishedVersion(find_version(text, root=args.repository).path) for text in args.version_dir
    ]
    if args.baselines and len({version.config for version in versions}) > 1:
        raise ValueError("--baselines needs versions of the same split; measure these separately")
    names = [version.name for version in versions]
    if len(set(names)) < len(names):  # of several repositories
        names = [str(version.path) for version in versions]
    rows: Rows = {}
    source = dataset = None
    for name, version in zip(names, versions, strict=True):
        wanted = _source_of(version, args, settings)
        if dataset is None or source != wanted:
            source, dataset = wanted, load(wanted)
        split = split_of(version, dataset)
        config = version.config
        if args.protocol is not None:
            config = dataclasses.replace(config, protocol=args.protocol)
        with timer.step(name) as measures:
            evaluation = evaluate_version(version, dataset, split, resamples=args.resamples)
            measures.append(str(evaluation.headline(config.protocol)))
        rows |= _rows([Judged(name=name, evaluation=evaluation)], dataset, config, split)
        if args.baselines and version is versions[-1]:
            judged = baseline_steps(
                dataset, split, BASELINES, config, timer=timer, resamples=args.resamples
            )
            rows |= _rows(judged, dataset, config, split)
    return rows


def _source_of(
    version: "PublishedVersion", args: argparse.Namespace, settings: RunConfig
) -> DataConfig:
    """Return the data that was asked for, or else that of the version, with other options."""
    if args.data_source is not None or settings.data.source != DataConfig.source:
        return settings.data
    source = data_config(args, **vars(version.data_source()))
    progress(f"data of {version.name}: {source.source}")
    return source


def _rows(
    judged: "Sequence[Judged]", dataset: "Dataset", config: TrainConfig, split: "Split"
) -> Rows:
    """Return the metrics of each model, with the data and the split that they belong to."""
    from shortlist.export.data.fingerprint import dataset_facts

    context = {
        "data": dataclasses.asdict(dataset_facts(dataset)),
        "split": {
            "method": split.method,
            "held_out_fraction": config.held_out_fraction,
            "validation_fraction": config.validation_fraction,
            "seed": config.seed,
        },
    }
    return {
        row.name: context | row.evaluation.as_json(config.protocol)
        for row in judged
        if row.evaluation is not None
    }


def _as_text(rows: Rows, *, details: bool) -> str:
    """Return one table per protocol with a row for each model, and what they share."""
    first = next(iter(rows.values()))
    blocks = ["\n".join(_shared(rows))]
    blocks += [_side_by_side(rows, protocol) for protocol in protocols_of(first)]
    extra = [f"{name}: {line}" for name, row in rows.items() for line in extra_metrics(row)]
    blocks += ["\n".join(extra)] if extra else []
    blocks += [_details(name, row) for name, row in rows.items() if details]
    return "\n\n".join(blocks)


def _shared(rows: Rows) -> list[str]:
    """Return lines on the held-out part, for each model if they differ."""
    lines = {name: headline_lines(row)[1:] for name, row in rows.items()}
    if len({tuple(of_model) for of_model in lines.values()}) == 1:
        return next(iter(lines.values()))
    return [f"{name}: {line}" for name, of_model in lines.items() for line in of_model]


def _side_by_side(rows: Rows, protocol: str) -> str:
    first = next(iter(rows.values()))
    headline = first["headline"]["metric"]
    k, most = headline.partition("@")[2], max(map(_cutoff, first[protocol]))
    by_user = [name for name in first[protocol] if name.startswith("user_")]
    others = ("hit_rate@1", f"hit_rate@{most}", f"ndcg@{k}", f"ndcg@{most}", *by_user)
    others = (*others, f"coverage@{k}")
    names = [name for name in dict.fromkeys(others) if name != headline]
    lines = [[protocol.replace("_", " "), headline, "95% interval", *names]]
    for model, row in rows.items():
        metrics = row.get(protocol, {})
        interval = row.get("intervals", {}).get(protocol, {}).get(headline)
        lines.append(
            [
                model,
                number(metrics.get(headline), ".4f"),
                "[{:.4f}, {:.4f}]".format(*interval) if interval else "-",
                *(number(metrics.get(name), ".4f") for name in names),
            ]
        )
    return table(lines)


def _cutoff(metric: str) -> int:
    return int(metric.partition("@")[2])


def _details(model: str, row: Mapping[str, Any]) -> str:
    """Return all metrics of a model, and its hit rates by activity of the users."""
    protocols, headline = protocols_of(row), row["headline"]["metric"]
    lines = [
        [model, *(text for protocol in protocols for text in (protocol.replace("_", " "), ""))]
    ]
    for name in row["seen_kept"]:
        cells = [name]
        for protocol in protocols:
            interval = row.get("intervals", {}).get(protocol, {}).get(name)
            cells.append(number(row[protocol].get(name), ".4f"))
            cells.append("[{:.4f}, {:.4f}]".format(*interval) if interval else "")
        lines.append(cells)
    heads = [f"{headline} ({protocol.replace('_', ' ')})" for protocol in protocols]
    activity = [["earlier interactions", "users", "held out", *heads]]
    for bucket in row["activity"]:
        rates = [bucket["metrics"].get(protocol, {}).get(headline) for protocol in protocols]
        activity.append(
            [
                f"{bucket['fewest']}-{bucket['most']}",
                str(bucket["num_users"]),
                str(bucket["num_held_out"]),
                *(number(rate, ".4f") for rate in rates),
            ]
        )
    return f"{table(lines)}\n\n{table(activity)}"
