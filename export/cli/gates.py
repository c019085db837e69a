"""Verbs `verify` and `publish`: the gates on any SavedModel."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.export.cli.gate_options import add_gate_arguments, gate_settings

if TYPE_CHECKING:
    from shortlist.serving.repository.version import GateResult

__all__ = ["add_commands", "lines"]


def add_commands(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verbs; imports nothing heavy."""
    verify = verbs.add_parser(
        "verify",
        help="put a version before the gates again",
        description="Runs the gates on a SavedModel: VERSION_DIR of a model repository, "
        "<repository>/<model>/<version>, is compared with the live version of its repository.",
        epilog="example:\n  shortlist verify models/retrieval_ivf/1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("path", type=Path, metavar="VERSION_DIR")
    add_gate_arguments(verify)
    verify.add_argument("--json", action="store_true", help="print the results as JSON")
    verify.set_defaults(run=_verify)
    publish = verbs.add_parser(
        "publish",
        help="publish an existing SavedModel through the gates",
        description="Copies a SavedModel into a model repository under the next version number, "
        "after it has passed the gates.",
        epilog="example:\n"
        "  shortlist publish staging/retrieval_ivf/1 --name retrieval_ivf --repository models",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    publish.add_argument("path", type=Path, metavar="SAVED_MODEL_DIR")
    publish.add_argument("--name", required=True, metavar="MODEL", help="model name")
    publish.add_argument(
        "--repository",
        default="models",
        metavar="DIR_OR_URL",
        help="model repository: a folder, or a URL such as gs://bucket/models (default: "
        "%(default)s)",
    )
    add_gate_arguments(publish)
    publish.add_argument("--json", action="store_true", help="print the outcome as JSON")
    publish.set_defaults(run=_publish)


def lines(results: "Mapping[str, Sequence[GateResult]]") -> str:
    """One line for each gate of each servable."""
    return "".join(f"{name}: {result}\n" for name, found in results.items() for result in found)


def _verify(args: argparse.Namespace) -> int:
    from shortlist.export.gates.publication import verify_version
    from shortlist.export.gates.record import require_passed

    results = verify_version(args.path, gate_settings(args))
    if args.json:
        found = {
            name: [asdict(outcome) for outcome in outcomes] for name, outcomes in results.items()
        }
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write(lines(results))
    require_passed(results)
    return 0


def _publish(args: argparse.Namespace) -> int:
    from shortlist.export.gates.publication import publish_saved_model
    from shortlist.export.gates.record import GateError

    try:
        published = publish_saved_model(args.path, args.name, args.repository, gate_settings(args))
    except GateError as exc:
        sys.stderr.write(lines(exc.results))
        raise
    sys.stderr.write(lines(published.results))
    if args.json:
        outcome = {
            "servable": args.name,
            "version": published.version,
            "path": str(published.path),
            "gates": [asdict(result) for result in published.results[args.name]],
        }
        sys.stdout.write(json.dumps(outcome, indent=2) + "\n")
    else:
        sys.stdout.write(
            f"published version {published.version} of {args.name}: {published.path}\n"
        )
    return 0
