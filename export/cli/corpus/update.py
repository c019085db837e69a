"""`shortlist update`."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.output import tell, write, write_json
from shortlist.export.cli.console import ConsoleProgress, command_name
from shortlist.export.cli.options import gate_settings
from shortlist.export.cli.summary import gate_lines, notable_gates, notice_if_live
from shortlist.export.gates.subject import live_version
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.names import MAX_VERSION
from shortlist.serving.repository.reference import VersionReference, find_version

if TYPE_CHECKING:
    from shortlist.export.update.run import UpdateResult

__all__ = ["as_json", "as_text", "parent_of", "say_unchanged", "update"]

# What an embedding follows from, in words.
_FROM = {
    "embedding": "given",
    "like": "like another candidate",
    "interactions": "from interactions",
    "content": "from attributes and titles",
    "nothing": "the mean, because nothing is known",
}


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
            result = run_update(
                found, config, allow_again=args.allow_again, progress=console, gates=gates
            )
    except GateError as exc:
        tell(gate_lines(exc.results))
        raise
    if result is None:
        say_unchanged(args, found)
        return 0
    if args.json:
        write_json(as_json(result))
    else:
        write(as_text(result, found.repository.root))
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


def say_unchanged(
    args: argparse.Namespace, found: VersionReference, **facts: Mapping[str, str]
) -> None:
    """Say that nothing was published, because nothing changes."""
    if args.json:
        write_json({"version": None, "parent": found.version, **facts})
    else:
        write(f"nothing to change: version {found.version} of {found.name} stays as it is")


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


def as_text(result: "UpdateResult", repository: Path, *, rolled_out: bool = False) -> str:
    """Return a result as lines."""
    sources = ", ".join(f"{count:,} {_FROM[name]}" for name, count in result.sources.items())
    made = f"made from version {result.parent}: {result.facts or 'nothing changed'}"
    lines = [
        f"published version {result.version}, {made}",
        *([f"  {'embeddings':<24} {sources}"] if sources else []),
        *(f"  {name:<24} {path}" for name, path in result.servables.items()),
        *(f"  {note}" for note in result.notes),
        *notable_gates(result.gates),
    ]
    if rolled_out:
        return "\n".join(lines)
    rollout = (
        f"{command_name()} canary {result.version} --repository {shlex.quote(str(repository))}"
    )
    return "\n".join([*lines, "", f"roll it out with: {rollout}, then promote"])
