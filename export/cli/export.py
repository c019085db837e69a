"""`shortlist export`."""

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.output import progress, tell, write, write_json
from shortlist.export.cli.console import ConsoleProgress, command_name, load_data
from shortlist.export.cli.experiments.track import track_published
from shortlist.export.cli.options.run_config import as_toml, run_config
from shortlist.export.cli.summary import (
    extra_metrics,
    gate_lines,
    headline_lines,
    metrics_table,
    notable_gates,
    notice_if_live,
)
from shortlist.export.config import BASELINES
from shortlist.export.tracking.tracker import check_tracker

if TYPE_CHECKING:
    from shortlist.export.cli.options.run_config import RunConfig
    from shortlist.export.pipeline import ExportResult
    from shortlist.export.training.checkpoint import CheckpointConfig
    from shortlist.export.training.workers import Workers

__all__ = ["export"]

# In the manifest, but too much for a summary.
_DETAILS = ("ndcg", "mrr", "coverage", "popularity")
_VALUES = 3  # of a feature, as examples


def export(args: argparse.Namespace) -> int:
    """Train, index, run the gates and publish."""
    config = run_config(args)
    if args.print_config:
        write(as_toml(config))
        return 0
    # NumPy, PyArrow and the like are not needed before.
    from shortlist.export.gates.record import GateError
    from shortlist.export.preflight import check_config, check_data, log_left_out
    from shortlist.export.training.checkpoint import CheckpointConfig

    folder = args.checkpoints or args.repository / f".training-{config.export.model}"
    checkpoints = CheckpointConfig(folder=folder, resume=args.resume)
    workers = _workers()
    if workers is not None and not workers.is_chief:
        return _help(config, workers, checkpoints)
    if args.track is not None:
        check_tracker(args.track)
    check_config(
        config.export,
        args.repository,
        gates=config.gates,
        checkpoints=args.checkpoints,
        baselines=args.baselines,
    )
    warm_start = None
    if args.warm_start is not None:
        from shortlist.export.training.states.warm_start import read_warm_start
        from shortlist.serving.repository.reference import find_version

        reference = find_version(args.warm_start, root=args.repository)
        warm_start = read_warm_start(reference, config.export, args.repository)
    if not args.index:
        log_left_out(config.export.indexes)
    dataset = load_data(config.data)
    check_data(dataset, config.export, args.repository)
    # Imports TensorFlow, which takes seconds.
    from shortlist.export.pipeline import run_export

    try:
        with ConsoleProgress() as console:
            result = run_export(
                dataset,
                config.export,
                args.repository,
                progress=console,
                gates=config.gates,
                checkpoints=checkpoints,
                workers=workers,
                allow_again=args.allow_again,
                baselines=BASELINES if args.baselines else BASELINES[:1],
                warm_start=warm_start,
            )
    except GateError as exc:
        tell(gate_lines(exc.results))
        raise
    if args.json:
        write_json(_as_json(result))
    else:
        write(_as_text(result, args.repository))
    notice_if_live(args.repository, result.servables, result.version)
    if args.track is not None:
        track_published(args.track, args.repository, list(result.servables))
    return 0


def _workers() -> "Workers | None":
    """Join the processes of the training that TF_CONFIG describes, if it is set."""
    if not os.environ.get("TF_CONFIG"):
        return None
    from shortlist.export.training.workers import join_workers

    return join_workers(os.environ)


def _help(config: "RunConfig", workers: "Workers", checkpoints: "CheckpointConfig") -> int:
    """Take part in the training of another process, which publishes."""
    from shortlist.export.pipeline import help_train

    help_train(load_data(config.data), config.export, workers=workers, checkpoints=checkpoints)
    progress(f"worker {workers.index} of {workers.count} is done; worker 0 publishes")
    return 0


def _as_json(result: "ExportResult") -> dict[str, Any]:
    return {
        "version": result.version,
        "servables": {name: str(path) for name, path in result.servables.items()},
        "report": str(result.report),
        "metrics": result.metrics,
        "baselines": result.baselines,
        "features": result.features,
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
        "gates": {
            name: {gate.gate: str(gate.verdict) for gate in gates}
            for name, gates in result.gates.items()
        },
    }


def _as_text(result: "ExportResult", repository: Path) -> str:
    names = [name for name in result.metrics["seen_kept"] if not name.startswith(_DETAILS)]
    headline, *more = headline_lines(result.metrics)
    others = ", ".join(f"{name} {value:.4f}" for name, value in result.baselines.items())
    return "\n".join(
        [
            f"published version {result.version}",
            *(f"  {name:<24} {path}" for name, path in result.servables.items()),
            f"  {'report':<24} {result.report}",
            *_features(result),
            *notable_gates(result.gates),
            "",
            f"{headline}; {others}" if others else headline,
            *_weakness(result),
            *more,
            "",
            metrics_table("on the held-out interactions", result.metrics, names, ".4f"),
            *extra_metrics(result.metrics),
            "",
            f"serve it with: {command_name()} serve --repository {shlex.quote(str(repository))}",
        ]
    )


def _features(result: "ExportResult") -> list[str]:
    """Return a line with the features that requests can give, and some of their values."""
    shown = [
        f"{name}={'|'.join(values[:_VALUES])}{'|…' if len(values) > _VALUES else ''}"
        for name, values in result.features.items()
    ]
    return [f"  {'features':<24} {', '.join(shown)}"] if shown else []


def _weakness(result: "ExportResult") -> list[str]:
    """Return a line if a list of the most popular candidates is as good."""
    popularity = result.baselines.get("popularity", 0.0)
    if popularity < result.metrics["headline"]["value"]:
        return []
    return ["popularity alone is as good: train on more data or longer, or serve a popular list"]
