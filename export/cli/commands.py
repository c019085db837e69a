"""Verbs that `export` adds to the `shortlist` command; nothing heavy is imported to parse."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.contract import DEFAULT_MODEL, DEFAULT_TOP_K, INDEXES
from shortlist.export.cli import bench
from shortlist.export.cli import gates as gates_cli
from shortlist.export.cli.gate_options import add_gate_arguments
from shortlist.export.cli.quality import BASELINES, add_evaluate, add_quality
from shortlist.export.cli.run_config import add_config_arguments, as_toml, run_config
from shortlist.export.cli.train_options import add_train_arguments
from shortlist.export.config import TARGETS, ExportConfig
from shortlist.export.data.options import add_data_arguments, data_config
from shortlist.serving.servers.kinds import ServerKind

if TYPE_CHECKING:
    from shortlist.export.pipeline import ExportResult

__all__ = ["add_benches", "add_commands"]

# In the manifest, but too much for a summary.
_DETAILS = ("ndcg", "mrr", "coverage", "popularity")
_EXAMPLE = "shortlist export --data sample --repository models --epochs 3"


def add_commands(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds this package's verbs; imports nothing heavy."""
    _add_export(verbs)
    _add_demo(verbs)
    gates_cli.add_commands(verbs)
    add_evaluate(verbs)


def add_benches(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the benchmarks of this package; imports nothing heavy."""
    add_quality(benches)
    bench.add_benches(benches)


def _add_export(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "export",
        help="train a model, index it, and publish its servables",
        description="Trains a two-tower model on interactions and publishes one servable per "
        "index, all with the same new version number. Where TF_CONFIG names several workers, "
        "the same command in each of them trains with MultiWorkerMirroredStrategy, and the "
        "first one publishes.",
        epilog=f"Example:\n  {_EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    add_data_arguments(parser)
    add_train_arguments(parser)
    group = parser.add_argument_group("model")
    group.add_argument(
        "--repository",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help="model repository to publish into; made if missing (default: %(default)s)",
    )
    group.add_argument(
        "--model",
        metavar="NAME",
        help=f"model name; servables are called NAME_<index> (default: {DEFAULT_MODEL})",
    )
    group.add_argument(
        "--index",
        action="append",
        choices=INDEXES,
        help="index to publish; give it once per index (default: all)",
    )
    group.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help=f"answers per user of serving_default (default: {DEFAULT_TOP_K})",
    )
    group.add_argument(
        "--recall",
        type=float,
        metavar="SHARE",
        help="share of the exact top 10 that approximate indexes must find; their parameters "
        f"are chosen for it by measuring (default: {ExportConfig.recall})",
    )
    group.add_argument(
        "--target",
        choices=TARGETS,
        help="refuse servables that this server cannot run, before anything is published",
    )
    group.add_argument(
        "--without-seen",
        action="store_true",
        help="leave each user's training interactions out of the servables: smaller, but "
        "requests cannot exclude them",
    )
    group.add_argument(
        "--batching",
        action="store_true",
        help="publish for TensorFlow Serving with --enable_batching: no warm-up requests of "
        "`retrieve`, whose scalar k cannot be batched",
    )
    group.add_argument(
        "--baselines", action="store_true", help="show EASE and iALS in the report, too"
    )
    group = parser.add_argument_group("interruption")
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on where an interrupted training of the same configuration and data was; "
        "the outcome is the same",
    )
    group.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="where the training is saved every 30 s or so; removed after the publication "
        "(default: .training-<model> in the model repository)",
    )
    add_gate_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_run_export)


def _add_demo(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "demo",
        help="train, publish, serve and query in one go, on one machine",
        description="Trains a model, publishes its servables, starts a model server, asks it for "
        "two users over REST and gRPC, shows the answers beside what the users liked, and stops "
        "the server again. Where a MovieLens release cannot be downloaded, made data are used.",
        epilog="example:\n  shortlist demo --data sample --repository demo-output/models",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("demo-output/models"),
        metavar="DIR",
        help="model repository to publish into; made if missing (default: %(default)s)",
    )
    parser.add_argument(
        "--server",
        default=ServerKind.EMBEDDED.value,
        choices=[kind.value for kind in ServerKind],
        help="what serves: the embedded server, the stock container image, or a "
        "tensorflow_model_server on PATH (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.set_defaults(run=_run_demo)


def _run_demo(args: argparse.Namespace) -> int:
    began = time.monotonic()
    source = data_config(args)
    from shortlist.export.cli.demo import run_demo
    from shortlist.export.cli.demo_text import as_json, as_text

    report = run_demo(
        source,
        args.repository,
        server=ServerKind(args.server),
        config=ExportConfig(),
        progress=sys.stderr,
        began=began,
    )
    if args.json:
        _write(json.dumps(as_json(report), indent=2))
    else:
        _write(as_text(report, args.repository))
    return 0


def _run_export(args: argparse.Namespace) -> int:
    config = run_config(args)
    if args.print_config:
        _write(as_toml(config))
        return 0
    # From here on TensorFlow, pandas and the like are wanted.
    from shortlist.export.cli.console import ConsoleProgress
    from shortlist.export.data import load
    from shortlist.export.gates.record import GateError
    from shortlist.export.pipeline import help_train, run_export
    from shortlist.export.training.checkpoint import CheckpointConfig
    from shortlist.export.training.workers import join_workers

    workers = join_workers(os.environ)
    folder = args.checkpoints or args.repository / f".training-{config.export.model}"
    checkpoints = CheckpointConfig(folder=folder, resume=args.resume)
    if not workers.is_chief:
        help_train(load(config.data), config.export, workers=workers, checkpoints=checkpoints)
        sys.stderr.write(f"worker {workers.index} of {workers.count} is done; 0 publishes\n")
        return 0
    try:
        with ConsoleProgress(sys.stderr) as progress:
            result = run_export(
                load(config.data),
                config.export,
                args.repository,
                progress=progress,
                gates=config.gates,
                checkpoints=checkpoints,
                workers=workers,
                baselines=BASELINES if args.baselines else BASELINES[:1],
            )
    except GateError as exc:
        sys.stderr.write(gates_cli.lines(exc.results))
        raise
    sys.stderr.write(gates_cli.lines(result.gates))
    _write(json.dumps(_as_json(result), indent=2) if args.json else _as_text(result))
    return 0


def _as_json(result: "ExportResult") -> dict[str, Any]:
    return {
        "version": result.version,
        "servables": {name: str(path) for name, path in result.servables.items()},
        "report": str(result.report),
        "metrics": result.metrics,
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
        "gates": {
            name: {one.gate: str(one.verdict) for one in found}
            for name, found in result.gates.items()
        },
    }


def _as_text(result: "ExportResult") -> str:
    lines = [f"published version {result.version}"]
    lines += [f"  {name:<24} {path}" for name, path in result.servables.items()]
    lines.append(f"  {'report':<24} {result.report}")
    lines += ["", "on the held-out interactions" + " " * 2 + "seen kept  seen excluded"]
    kept, excluded = result.metrics["seen_kept"], result.metrics["seen_excluded"]
    lines += [
        f"  {name:<26} {kept[name]:9.4f} {excluded[name]:14.4f}"
        for name in kept
        if not name.startswith(_DETAILS)
    ]
    if "rating" in result.metrics:
        rating = result.metrics["rating"]
        lines.append(
            f"  rating RMSE {rating['rmse']:.4f} (means per user and candidate: "
            f"{rating['baseline_rmse']:.4f})"
        )
    if "similar" in result.metrics:
        similar = result.metrics["similar"]
        lines.append(
            f"  similar hit_rate@10 {similar['hit_rate']:.4f} (by towers: "
            f"{similar['towers_hit_rate']:.4f})"
        )
    return "\n".join(lines)


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
