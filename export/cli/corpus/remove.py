"""`shortlist remove`."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shortlist.clients.cli.connection import security
from shortlist.clients.cli.output import progress, tell, write, write_json
from shortlist.clients.errors import ServableNotFound
from shortlist.clients.grpc import GrpcClient
from shortlist.export.cli.console import ConsoleProgress
from shortlist.export.cli.corpus.update import as_json, as_text, parent_of, say_unchanged
from shortlist.export.cli.options import gate_settings
from shortlist.export.cli.summary import gate_lines, notice_if_live
from shortlist.serving.cli.fleet import apply_options, mover, opened_fleet, servables
from shortlist.serving.errors import RepositoryError, RolloutError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.rollout.apply import apply
from shortlist.serving.rollout.shards import rollout_name

if TYPE_CHECKING:
    from shortlist.export.update.run import UpdateResult

__all__ = ["remove"]

_ASKED_EVERY = 0.2  # seconds
_ANSWERS_END = 30.0  # seconds, for requests that were in flight


def remove(args: argparse.Namespace) -> int:
    """Publish a version without some candidates; with `--now`, roll it out and prove it."""
    base = _base(args)
    found = parent_of(base, args.parent)
    gates = gate_settings(args)
    if args.dry_run:
        raise RepositoryError("--dry-run needs a published version; use `shortlist update` first")
    # Imports TensorFlow, which takes seconds.
    from shortlist.export.gates.record import GateError
    from shortlist.export.update.changes import ChangesConfig
    from shortlist.export.update.run import run_update

    try:
        with ConsoleProgress() as console:
            result = run_update(
                found,
                ChangesConfig(),
                removed=args.ids,
                progress=console,
                gates=replace(gates, quick=args.gates != "all"),
            )
    except GateError as exc:
        tell(gate_lines(exc.results))
        raise
    if result is None:
        say_unchanged(args, found)
        return 0
    proof = _roll_out(args, result) if args.now else {}
    if args.json:
        write_json({**as_json(result), "servers": proof})
    else:
        write(as_text(result, found.repository.root, rolled_out=args.now))
        for address, when in proof.items():
            write(f"  {address:<24} knows none of them since {when}")
    if not args.now:
        notice_if_live(found.repository.root, result.servables, result.version)
    return 0


def _base(args: argparse.Namespace) -> str:
    """Return the base path of a servable to update; all of its export are."""
    names = args.servable or ModelRepository(args.repository).models()
    if not names:
        raise RepositoryError(f"no model in {args.repository}; name another with --repository")
    return str(args.repository / names[0])


def _roll_out(args: argparse.Namespace, result: "UpdateResult") -> dict[str, str]:
    """Promote the version, unload the one before, and return when each server forgot the ids."""
    with opened_fleet(args) as fleet:
        models = fleet.repository.models()
        ours = {rollout_name(models, servable) for servable in result.servables}
        names = [name for name in servables(args, fleet) if name in ours]
        if not names:
            raise RolloutError(
                f"version {result.version} is published, but the servers hold none of "
                f"{', '.join(result.servables)}; name their models with --servable"
            )
        for name in names:
            for action, version in (
                ("canary", result.version),
                ("promote", result.version),
                ("finish", None),
            ):
                apply(
                    mover(args, fleet, name),
                    name,
                    action,
                    version,
                    options=apply_options(args),
                    on_step=lambda step: progress(f"now: {step}"),
                )
        addresses = [server.address for server in fleet.servers]
    asked = [name for name in result.servables if rollout_name(models, name) in names]
    return {address: _forgotten(args, address, asked) for address in addresses}


def _forgotten(args: argparse.Namespace, address: str, names: Sequence[str]) -> str:
    """Ask a server until none of its models knows the candidates, and return the time."""
    deadline = time.monotonic() + _ANSWERS_END
    with GrpcClient(address, **security(args)._asdict()) as client:
        left = list(names)
        while left:
            left = [name for name in left if _knows(client, name, args.ids)]
            if left and time.monotonic() > deadline:
                raise RolloutError(
                    f"{address} still answers with {args.ids[0]!r} as {left[0]}; look at "
                    "`shortlist rollout status`"
                )
            if left:
                time.sleep(_ASKED_EVERY)
    return datetime.now(UTC).isoformat(timespec="seconds")


def _knows(client: GrpcClient, name: str, ids: Sequence[str]) -> bool:
    try:
        return any(answer.known_candidate for answer in client.similar(ids, k=1, model=name))
    except ServableNotFound:  # another server's shard
        return False
