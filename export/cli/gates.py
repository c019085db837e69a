"""`shortlist verify` and `shortlist publish`: the gates on any SavedModel."""

import argparse
from pathlib import Path

from shortlist.clients.cli.output import progress, tell, write, write_json
from shortlist.clients.cli.progress import working
from shortlist.export.cli.options import gate_settings
from shortlist.export.cli.summary import gate_lines, notice_if_live
from shortlist.export.gates.foreign import Choices
from shortlist.export.gates.publication import publish_saved_model, verify_version
from shortlist.export.gates.record import GateError, require_passed
from shortlist.export.preflight import check_publication
from shortlist.serving.repository.object_store import is_url

__all__ = ["publish", "verify"]


def verify(args: argparse.Namespace) -> int:
    """Run the gates on a version again."""
    with working("gates"):
        results = verify_version(
            args.path, gate_settings(args), repository=args.repository, queries=args.queries
        )
    if args.json:
        write_json(results)
    else:
        write(gate_lines(results))
    require_passed(results)
    return 0


def publish(args: argparse.Namespace) -> int:
    """Publish a SavedModel that passes the gates."""
    settings = gate_settings(args)
    check_publication(args.path, args.name, args.repository, settings)
    try:
        choices = Choices(
            signature=args.signature,
            input=args.input,
            ids=args.ids,
            scores=args.scores,
            queries=args.queries,
        )
        with working("publish"):
            published = publish_saved_model(
                args.path, args.name, args.repository, settings, choices=choices
            )
    except GateError as exc:
        tell(gate_lines(exc.results))
        raise
    progress(gate_lines(published.results))
    if args.json:
        write_json(
            {
                "servable": args.name,
                "version": published.version,
                "path": str(published.path),
                "gates": published.results[args.name],
            }
        )
    else:
        write(f"published version {published.version} of {args.name}: {published.path}")
    if not is_url(args.repository):
        notice_if_live(Path(args.repository), [args.name], published.version)
    return 0
