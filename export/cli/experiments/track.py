"""`shortlist track`, and `export --track`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.clients.cli.output import notice, progress, table, write, write_json
from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.export.cli.options import add_repository
from shortlist.export.tracking.repository import track_repository
from shortlist.export.tracking.tracker import TrackingError, open_tracker
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import CONFIG_FILE

if TYPE_CHECKING:
    from shortlist.export.tracking.repository import Change

__all__ = ["add_track", "track", "track_published"]


def add_track(verbs: Parsers) -> None:
    """Add `track`."""
    parser = add_parser(
        verbs,
        "track",
        "Record versions and labels in an experiment tracker.",
        details="Each publication that the tracker does not have becomes a run with settings, "
        "metrics, curves and report, and each servable a version of the registered model of its "
        "name. Labels become aliases. Run it after each rollout, or from time to time: what the "
        "tracker has already is left as it is. MLflow is found by MLFLOW_TRACKING_URI (default: "
        "mlflow.db in this folder).",
        example="shortlist track mlflow --repository models",
        run="shortlist.export.cli.experiments.track:track",
    )
    parser.add_argument(
        "tracker",
        nargs="?",
        default="mlflow",
        metavar="mlflow[:EXPERIMENT]",
        help="tracker and experiment (default: mlflow, experiment `shortlist`)",
    )
    add_repository(parser)
    parser.add_argument(
        "--servable",
        action="append",
        metavar="NAME",
        help="model name, such as retrieval_ivf; repeatable (default: all)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="model_config_file with the labels (default: the one that `shortlist serve` writes "
        "into the repository)",
    )


def track(args: argparse.Namespace) -> int:
    """Bring a tracker up to date with a model repository."""
    repository = ModelRepository(args.repository)
    models = repository.models()
    names = list(dict.fromkeys(args.servable or models))
    unknown = sorted(set(names) - set(models))
    if unknown or not models:
        missing = f"no model {unknown[0]!r}" if unknown else "no model"
        raise RepositoryError(
            f"{missing} in {args.repository}; available: {', '.join(models) or 'none'}"
        )
    path = args.config or args.repository / CONFIG_FILE
    tracker = open_tracker(args.tracker)
    changes = track_repository(tracker, repository, names, config_path=path)
    if args.json:
        write_json({"tracker": tracker.address, "changes": changes})
        return 0
    write(_table(changes) if changes else f"{tracker.address} is up to date")
    return 0


def track_published(text: str, repository: Path, servables: Sequence[str]) -> None:
    """Record a publication; a tracker that fails costs a line on stderr, not the publication."""
    path = repository / CONFIG_FILE
    try:
        tracker = open_tracker(text)
        track_repository(tracker, ModelRepository(repository), servables, config_path=path)
    except TrackingError as exc:
        notice(
            f"published, but not tracked: {exc}, then run `shortlist track {text} --repository "
            f"{repository}`"
        )
    else:
        progress(f"tracked by {tracker.address}")


def _table(changes: "Sequence[Change]") -> str:
    rows = [["model", "version or label", ""]]
    rows += [[one.name, one.label or str(one.version), one.what] for one in changes]
    return table(rows, text=(0, 1, 2))
