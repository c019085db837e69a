"""`shortlist remove`."""

import argparse
import itertools
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
    pass

__all__ = ["remove"]

_ASKED_EVERY = 0.2  # seconds
_FINISH = ("finish", None)  # unloads the version before
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
    if result is None:  # an earlier call may have been interrupted before its proof
        proof = _roll_out(args, [found.name], None) if args.now else {}
        say_unchanged(args, found, servers=proof)
    else:
        proof = _roll_out(args, list(result.servables), result.version) if args.now else {}
        if args.json:
            write_json({**as_json(result), "servers": proof})
        else:
            write(as_text(result, found.repository.root, rolled_out=args.now))
        if not args.now:
            notice_if_live(found.repository.root, result.servables, result.version)
    for address, when in proof.items():
        if not args.json:
            write(f"  {address:<24} knows none of them since {when}")
    return 0


def _base(args: argparse.Namespace) -> str:
    """Return the base path of a servable to update; all of its export are."""
    repository = ModelRepository(args.repository)
    names = args.servable or repository.models()
    if not names:
        raise RepositoryError(f"no model in {args.repository}; name another with --repository")
    manifests = {name: repository.manifest(name, repository.versions(name)[-1]) for name in names}
    exports = {name: m.model for name, m in manifests.items() if m is not None and m.exported}
    if len(set(exports.values())) > 1:
        raise RepositoryError(
            f"{args.repository} holds several models ({', '.join(exports)}); name a servable of "
            "the one with --servable"
        )
    return str(args.repository / next(iter(exports or names)))


def _roll_out(
    args: argparse.Namespace, published: Sequence[str], version: int | None
) -> dict[str, str]:
    """Promote a version, unload the one before, and return when each server forgot the ids.

    Args:
        args: Parsed options.
        published: Its servables.
        version: Version; None to ask the servers only.
    """
    with opened_fleet(args) as fleet:
        models = fleet.repository.models()
        ours = {rollout_name(models, servable) for servable in published}
        names = [name for name in servables(args, fleet) if name in ours]
        if not names:
            raise RolloutError(
                f"the servers hold none of {', '.join(published)}; name their models with "
                "--servable"
            )
        moves = () if version is None else (("canary", version), ("promote", version), _FINISH)
        for name, (action, number) in itertools.product(names, moves):
            apply(
                mover(args, fleet, name),
                name,
                action,
                number,
                options=apply_options(args),
                on_step=lambda step: progress(f"now: {step}"),
            )
        addresses = [server.address for server in fleet.servers]
    asked = [name for name in published if rollout_name(models, name) in names]
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
