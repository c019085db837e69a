"""The verb `evaluate` and `bench quality`: how good recipes are, beside baselines."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.export.cli.run_config import RunConfig, add_config_arguments, as_toml, run_config
from shortlist.export.cli.train_options import add_train_arguments
from shortlist.export.config import PRESETS
from shortlist.export.data.options import add_data_arguments, data_config

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.evaluation.evaluate import Evaluation

__all__ = ["BASELINES", "add_evaluate", "add_quality"]

# The names of `evaluation.baselines`, cheapest first; that module is not needed to parse.
BASELINES = ("popularity", "ease", "ials")


def add_evaluate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `evaluate`."""
    parser = verbs.add_parser(
        "evaluate",
        help="measure a recipe, or published versions, on held-out interactions",
        description="Trains by a recipe and measures it on held-out interactions, beside "
        "popularity, EASE and iALS if asked for. Nothing is published. With --version-dir, "
        "trains nothing: asks published versions instead, on the split that their manifests "
        "record. Brute force gives the manifest's own numbers, an approximate index those of "
        "what it returns.",
        epilog="Example:\n  shortlist evaluate --data sample --epochs 5 --baselines",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    add_data_arguments(parser)
    add_train_arguments(parser)
    parser.add_argument(
        "--version-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help="<repository>/<model>/<version> to measure instead of a recipe, on the --data that "
        "it was exported from; give it once per version",
    )
    parser.add_argument(
        "--baselines", action="store_true", help=f"judge {', '.join(BASELINES)}, too"
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap resamples for the 95%% intervals (default: %(default)s)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write an HTML report on the training, with popularity and some users beside it",
    )
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> int:
    settings = run_config(args)
    if args.print_config:
        _write(as_toml(settings))
        return 0
    _check_report(args)
    from shortlist.export.data import load
    from shortlist.export.data.split import make_split
    from shortlist.export.evaluation.judge import Judged, judge_baselines, judge_model
    from shortlist.export.training.train import train

    recipe = (settings.export.towers, settings.export.train)
    config = recipe[1]
    if args.version_dir:
        return _evaluate_versions(args, settings)
    dataset = load(settings.data)
    split = make_split(
        dataset,
        method=config.split,
        held_out_fraction=config.held_out_fraction,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
    )
    _progress(
        f"{len(split.fitted)} interactions to train on, {len(split.held_out)} held out "
        f"({config.split})"
    )
    model = train(dataset, split, *recipe)
    own = judge_model(model, dataset, split, resamples=args.resamples)
    judged = [Judged(name=settings.preset, evaluation=own)]
    for name in BASELINES if args.baselines else BASELINES[:1] if args.report else ():
        _progress(f"fitting {name}")
        judged += judge_baselines(
            dataset, split, [name], seed=config.seed, resamples=args.resamples
        )
        if judged[-1].problem:
            _progress(f"{name} is left out: {judged[-1].problem}")
    if args.report is not None:
        from shortlist.export.report.publication import evaluation_report, write_report

        report = evaluation_report(
            dataset=dataset, split=split, model=model, judged=judged, config=settings.export
        )
        write_report(args.report, report)
        _progress(f"report {args.report}")
    _show(args, {one.name: one.evaluation for one in judged if one.evaluation})
    return 0


def _check_report(args: argparse.Namespace) -> None:
    """Refuses a report that could not be written, before the time for it is spent."""
    path: Path | None = args.report
    if path is None:
        return
    if args.version_dir:
        raise ValueError(
            f"--report tells of a training; {args.version_dir[0]} carries its own, "
            "assets.extra/report.html"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"--report names a file in a folder that exists, got {path}")


def _evaluate_versions(args: argparse.Namespace, settings: RunConfig) -> int:
    """Asks published versions instead of training."""
    from shortlist.export.data import load
    from shortlist.export.evaluation.judge import judge_baselines
    from shortlist.export.evaluation.published import PublishedVersion, evaluate_version, split_of

    versions = [PublishedVersion(path) for path in args.version_dir]
    if args.baselines and len({str(one.split_settings) for one in versions}) > 1:
        raise ValueError("--baselines needs versions of one split; measure these one by one")
    dataset = load(settings.data)
    found = {}
    for version in versions:
        version.check_data(dataset)
        split = split_of(version, dataset)
        _progress(f"asking {version.name}")
        found[version.name] = evaluate_version(version, dataset, split, resamples=args.resamples)
    for name in BASELINES if args.baselines else ():
        _progress(f"fitting {name}")
        (one,) = judge_baselines(
            dataset, split, [name], seed=settings.export.train.seed, resamples=args.resamples
        )
        if one.evaluation is None:
            _progress(f"{name} is left out: {one.problem}")
        else:
            found[name] = one.evaluation
    _show(args, found)
    return 0


def _show(args: argparse.Namespace, found: "Mapping[str, Evaluation]") -> None:
    if args.json:
        _write(json.dumps({name: one.as_json() for name, one in found.items()}, indent=2))
    else:
        _write("\n\n".join(_as_text(name, one) for name, one in found.items()))


def _as_text(name: str, one: "Evaluation") -> str:
    lines = [
        f"{name}: {one.num_held_out} held-out interactions of {one.num_users} users",
        f"  {'':<22} {'seen kept':>24} {'seen excluded':>24}",
    ]
    for metric in one.metrics["seen_kept"]:
        cells = [_cell(one, protocol, metric) for protocol in ("seen_kept", "seen_excluded")]
        lines.append(f"  {metric:<22} {cells[0]:>24} {cells[1]:>24}")
    if one.rating is not None:
        lines.append(
            f"  rating RMSE {one.rating.rmse:.4f} (means per user and candidate: "
            f"{one.rating.baseline_rmse:.4f})"
        )
    if one.similar is not None:
        lines.append(
            f"  similar hit_rate@10 {one.similar.hit_rate:.4f} (by towers: "
            f"{one.similar.towers_hit_rate:.4f})"
        )
    lines.append("  by activity (interactions in the training part), seen excluded:")
    for bucket in one.activity:
        rate = bucket.metrics["seen_excluded"].get("hit_rate@10", float("nan"))
        lines.append(
            f"    {f'{bucket.fewest}-{bucket.most}':<12} {bucket.num_users:>8} users   "
            f"hit_rate@10 {rate:.4f}"
        )
    return "\n".join(lines)


def _cell(one: "Evaluation", protocol: str, metric: str) -> str:
    text = f"{one.metrics[protocol][metric]:.4f}"
    interval = one.intervals.get(protocol, {}).get(metric)
    return f"{text} [{interval.low:.4f}, {interval.high:.4f}]" if interval else text


def add_quality(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `bench quality`."""
    parser = benches.add_parser(
        "quality",
        help="hit rates of recipes and baselines on one split, over several seeds",
        description="Trains recipes and fits baselines on the same splits and prints hit rates, "
        "mean and standard deviation over the seeds, as a Markdown table.",
        epilog="Example:\n  shortlist bench quality --data sample --seeds 1 --row default "
        "--row popularity",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="number of seeds (default: %(default)s)"
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        default=43,  # the recipe was chosen with 42, whose held-out part was looked at
        metavar="N",
        help="the first of them (default: %(default)s)",
    )
    parser.add_argument(
        "--row",
        action="append",
        metavar="NAME",
        help=f"preset ({', '.join(PRESETS)}) or baseline ({', '.join(BASELINES)}); give it once "
        "per row (default: all)",
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="instead: the default recipe with one part changed at a time",
    )
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON")
    parser.set_defaults(run=_run_quality)


def _run_quality(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
    source = data_config(args)
    from shortlist.export.bench.quality import ABLATIONS, as_markdown, compare
    from shortlist.export.data import load

    dataset = load(source)
    rows = args.row or (*BASELINES, *_presets_for(dataset))
    if args.ablation:
        rows = ("default", *ABLATIONS)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    table = compare(dataset, rows, seeds, progress=_progress)
    if args.json:
        _write(json.dumps(_as_json(table), indent=2))
    else:
        _write(as_markdown(table))
    return 0


def _presets_for(dataset: "Dataset") -> list[str]:
    """All presets, but without ratings none that predicts them."""
    rated = dataset.ratings is not None
    return [name for name, (_, config) in PRESETS.items() if rated or not config.rating_weight]


def _as_json(table: Any) -> dict[str, Any]:
    return {
        row: {name: dataclasses.asdict(spread) for name, spread in found.items()}
        for row, found in table.items()
    }


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
