"""`shortlist update`: its parser, which imports nothing heavy, and what it does."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.output import tell, write, write_json
from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.export.cli.console import ConsoleProgress, command_name
from shortlist.export.cli.options import add_gate_arguments, gate_settings
from shortlist.export.cli.summary import gate_lines, notable_gates, notice_if_live
from shortlist.export.gates.subject import live_version
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.names import MAX_VERSION
from shortlist.serving.repository.reference import VersionReference, find_version

if TYPE_CHECKING:
    from shortlist.export.update.run import UpdateResult

__all__ = ["add_update", "parent_of", "update"]


def add_update(verbs: Parsers) -> None:
    """Add the verb."""
    parser = add_parser(
        verbs,
        "update",
        "Publish a version with other candidates or events, without training.",
        details="The new version has the towers of an earlier one, from which all that is needed "
        "is read. Files are CSV, TSV, JSON lines, Parquet or Arrow; ids to remove or forget may "
        "also be one per line.",
        example="shortlist update models/retrieval_ivf --candidates new.csv --remove withdrawn.txt",
        run="shortlist.export.cli.corpus.update:update",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="base path of a servable, <repository>/<model>; all servables of its export are "
        "updated",
    )
    parser.add_argument(
        "--from",
        dest="parent",
        metavar="VERSION",
        help="version to start from: a number or a label (default: stable, or the newest if no "
        "version has this label)",
    )
    group = parser.add_argument_group("changes")
    group.add_argument(
        "--candidates",
        type=Path,
        metavar="FILE",
        help="new candidates with their attributes, and known ones whose attributes changed; a "
        "column `embedding` gives a vector, `like` the id of a similar candidate",
    )
    for option, text in (
        ("--attributes", "attributes of known candidates, such as prices; others stay"),
        ("--remove", "ids of candidates to remove"),
        ("--forget-users", "ids of users to forget: their events, vectors and recorded queries"),
    ):
        group.add_argument(option, type=Path, metavar="FILE", help=text)
    group.add_argument(
        "--interactions",
        action="append",
        default=[],
        metavar="FILE",
        help="interactions since the version; repeatable. Those of its users join their histories, "
        "and new candidates get embeddings from those who took them",
    )
    add_gate_arguments(parser)
    parser.set_defaults(target=None)  # that of the version


def update(args: argparse.Namespace) -> int:
    """Publish an update."""
    found = parent_of(args.model, args.parent)
    gates = gate_settings(args)
    # Imports TensorFlow, which takes seconds.
    from shortlist.export.gates.record import GateError
    from shortlist.export.update.changes import ChangesConfig
    from shortlist.export.update.run import run_update

    config = ChangesConfig(
        candidates=args.candidates,
        attributes=args.attributes,
        remove=args.remove,
        interactions=tuple(args.interactions),
        forget_users=args.forget_users,
    )
    try:
        with ConsoleProgress() as console:
            result = run_update(found, config, progress=console, gates=gates)
    except GateError as exc:
        tell(gate_lines(exc.results))
        raise
    if args.json:
        write_json(as_json(result))
    else:
        write(_as_text(result, found.repository.root))
    notice_if_live(found.repository.root, result.servables, result.version)
    return 0


def parent_of(model: str, version: str | None) -> VersionReference:
    """Return the version of a model to start from; the stable one, or the newest, if None.

    Raises:
        RepositoryError: There is none.
    """
    base = Path(model).expanduser()
    if version is not None:
        return find_version(str(base / version))
    repository = ModelRepository(base.resolve().parent)
    live = live_version(repository, base.resolve().name, before=MAX_VERSION + 1)
    if live is None:  # perhaps the version is part of the text; else this says what is wrong
        return find_version(model)
    return VersionReference(repository=repository, name=base.resolve().name, version=live.version)


def as_json(result: "UpdateResult") -> dict[str, Any]:
    """Return a result as JSON values."""
    return {
        "version": result.version,
        "parent": result.parent,
        "servables": {name: str(path) for name, path in result.servables.items()},
        "update": vars(result.facts),
        "embeddings": result.sources,
        "notes": list(result.notes),
        "seconds": {step: round(seconds, 3) for step, seconds in result.seconds.items()},
        "gates": {
            name: {gate.gate: str(gate.verdict) for gate in gates}
            for name, gates in result.gates.items()
        },
    }


def _as_text(result: "UpdateResult", repository: Path) -> str:
    sources = ", ".join(f"{count:,} from {name}" for name, count in result.sources.items())
    made = f"made from version {result.parent}: {result.facts or 'nothing changed'}"
    lines = [
        f"published version {result.version}, {made}",
        *([f"  {'embeddings':<24} {sources}"] if sources else []),
        *(f"  {name:<24} {path}" for name, path in result.servables.items()),
        *(f"  {note}" for note in result.notes),
        *notable_gates(result.gates),
        "",
    ]
    rollout = f"{command_name()} promote --repository {shlex.quote(str(repository))}"
    return "\n".join([*lines, f"roll it out with: {rollout}"])
