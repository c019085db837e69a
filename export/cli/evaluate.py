"""`shortlist evaluate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.clients.cli.output import progress, table, write, write_json
from shortlist.export.cli.options import BASELINES
from shortlist.export.cli.run_config import RunConfig, as_toml, run_config
from shortlist.export.cli.summary import extra_metrics, metrics_table

if TYPE_CHECKING:
    from shortlist.export.evaluation.evaluate import Evaluation
    from shortlist.export.evaluation.judge import Judged

__all__ = ["evaluate"]


def evaluate(args: argparse.Namespace) -> int:
    """Measure a recipe or published versions on held-out interactions."""
    settings = run_config(args)
    if args.print_config:
        write(as_toml(settings))
        return 0
    _check_report(args)
    evaluations = (
        _evaluate_versions(args, settings) if args.version_dir else _evaluate_recipe(args, settings)
    )
    if args.json:
        protocol = settings.export.train.protocol
        write_json({name: row.as_json(protocol) for name, row in evaluations.items()})
    else:
        write("\n\n".join(_as_text(name, evaluation) for name, evaluation in evaluations.items()))
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
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"--report must name a file in an existing folder, got {path}")


def _evaluate_recipe(args: argparse.Namespace, settings: RunConfig) -> "dict[str, Evaluation]":
    from shortlist.export.data import load
    from shortlist.export.data.split import configured_split
    from shortlist.export.evaluation.judge import Judged, judge_baselines, judge_model
    from shortlist.export.training.train import train

    recipe = (settings.export.towers, settings.export.train)
    config = recipe[1]
    dataset = load(settings.data)
    split = configured_split(dataset, config)
    progress(
        f"{len(split.fitted)} interactions to train on, {len(split.held_out)} held out "
        f"({config.split})"
    )
    model = train(dataset, split, *recipe)
    own = judge_model(model, dataset, split, resamples=args.resamples)
    judged = [Judged(name=settings.preset, evaluation=own)]
    names = BASELINES if args.baselines else BASELINES[:1] if args.report else ()
    judged += judge_baselines(
        dataset, split, names, seed=config.seed, resamples=args.resamples, progress=progress
    )
    if args.report is not None:
        from shortlist.export.report.publication import evaluation_report, write_report

        report = evaluation_report(
            dataset=dataset, split=split, model=model, judged=judged, config=settings.export
        )
        write_report(args.report, report)
        progress(f"report: {args.report}")
    return _measured(judged)


def _evaluate_versions(args: argparse.Namespace, settings: RunConfig) -> "dict[str, Evaluation]":
    """Query published versions instead of training."""
    from shortlist.export.data import load
    from shortlist.export.evaluation.judge import judge_baselines
    from shortlist.export.evaluation.published import PublishedVersion, evaluate_version, split_of

    versions = [PublishedVersion(path) for path in args.version_dir]
    if args.baselines and len({str(version.split_settings) for version in versions}) > 1:
        raise ValueError("--baselines needs versions of the same split; measure these separately")
    dataset = load(settings.data)
    evaluations = {}
    for version in versions:
        version.check_data(dataset)
        split = split_of(version, dataset)
        progress(f"querying {version.name}")
        evaluations[version.name] = evaluate_version(
            version, dataset, split, resamples=args.resamples
        )
    judged = judge_baselines(
        dataset,
        split,
        BASELINES if args.baselines else (),
        seed=settings.export.train.seed,
        resamples=args.resamples,
        progress=progress,
    )
    return evaluations | _measured(judged)


def _measured(judged: "list[Judged]") -> "dict[str, Evaluation]":
    """Return the evaluations by name; say which baselines are not available."""
    evaluations = {}
    for model in judged:
        if model.evaluation is None:
            progress(f"{model.name} is omitted: {model.problem}")
        else:
            evaluations[model.name] = model.evaluation
    return evaluations


def _as_text(name: str, evaluation: "Evaluation") -> str:
    def cell(protocol: str, metric: str) -> str:
        text = f"{evaluation.metrics[protocol][metric]:.4f}"
        interval = evaluation.intervals.get(protocol, {}).get(metric)
        return f"{text} [{interval.low:.4f}, {interval.high:.4f}]" if interval else text

    activity = [["training interactions", "users", "hit_rate@10, seen excluded"]]
    for bucket in evaluation.activity:
        rate = bucket.metrics["seen_excluded"].get("hit_rate@10", float("nan"))
        activity.append([f"{bucket.fewest}-{bucket.most}", str(bucket.num_users), f"{rate:.4f}"])
    held_out = f"{evaluation.num_held_out} held-out interactions of {evaluation.num_users} users"
    return "\n".join(
        [
            f"{name}: {held_out}",
            metrics_table("", evaluation.metrics["seen_kept"], cell),
            *extra_metrics(evaluation.as_json("seen_excluded")),
            table(activity),
        ]
    )
