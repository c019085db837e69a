"""`shortlist versions`, `prune` and `diff`."""

import argparse
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from shortlist.clients.cli.connection import security
from shortlist.clients.cli.output import (
    megabytes,
    notice,
    printable,
    write,
    write_json,
    write_table,
)
from shortlist.serving.cli.fleet import config_path
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.reference import VersionReference, find_version
from shortlist.serving.rollout.config import ConfigFile
from shortlist.serving.rollout.diff import Change, VersionDiff, diff_versions
from shortlist.serving.rollout.fleet import Fleet
from shortlist.serving.rollout.history import HISTORY_FILE, History, Recorder
from shortlist.serving.rollout.prune import Decision
from shortlist.serving.rollout.prune import prune as prune_versions
from shortlist.serving.rollout.replica import ReplicaClient
from shortlist.serving.rollout.versions import VersionRow, list_versions

__all__ = ["diff", "prune", "versions"]


# Settings that decide which interactions are held out, and metrics that a text shows.
_HELD_OUT = {
    "dataset.fingerprint",
    *(f"config.train.{name}" for name in ("split", "seed", "held_out_fraction")),
}
_SHOWN = re.compile(r"\.(hit_rate|ndcg)@100?$|rmse|similar")


@contextmanager
def _servers(args: argparse.Namespace) -> Iterator[list[ReplicaClient]]:
    addresses = args.address or History(args.repository / HISTORY_FILE).known_servers()
    if getattr(args, "offline", False):
        if args.address:
            raise ValueError("--offline and --address contradict each other; give only one")
        addresses = []
    with ExitStack() as stack:
        yield [
            stack.enter_context(ReplicaClient(address, security=security(args)))
            for address in addresses
        ]


def _names(args: argparse.Namespace) -> list[str]:
    models = ModelRepository(args.repository).models()
    unknown = sorted(set(args.servable or ()) - set(models))
    if unknown or not models:
        missing = f"no model {unknown[0]!r}" if unknown else "no model"
        raise RepositoryError(
            f"{missing} in {args.repository}; available: {', '.join(models) or 'none'}"
        )
    return list(dict.fromkeys(args.servable)) if args.servable else models


def versions(args: argparse.Namespace) -> int:
    """Print the versions of a model repository."""
    with _servers(args) as servers:
        rows, unreachable = list_versions(
            ModelRepository(args.repository),
            _names(args),
            config_path=config_path(args),
            servers=servers,
        )
    for address, reason in unreachable.items():
        notice(f"{address} does not answer: {reason}")
    if args.json:
        write_json(rows)
    else:
        write_table(_cells(rows), text=(0, 2, 3, 4, 6, 7))
        newest = next((row for row in rows if row.report is not None), None)
        if newest is not None:
            write(f"report on {newest.name} {newest.version}: {newest.report}")
    return 0


def _cells(rows: list[VersionRow]) -> list[list[str]]:
    lines = [["model", "version", "labels", "state", "metric", "MB", "gates", "created"]]
    for row in rows:
        gates = ", ".join(f"{count} {verdict}" for verdict, count in row.gates.items())
        lines.append(
            [
                row.name,
                str(row.version),
                " ".join(row.labels) or "-",
                ", ".join(f"{state} {address}" for address, state in row.states.items()) or "-",
                str(row.headline or "-"),
                megabytes(row.size_bytes),
                row.problem or gates or "-",
                row.created,
            ]
        )
    return lines


def prune(args: argparse.Namespace) -> int:
    """Delete old versions that are not in use."""
    names = _names(args)
    with _servers(args) as servers:
        fleet = Fleet(
            repository=ModelRepository(args.repository),
            servers=tuple(servers),
            config_file=ConfigFile(config_path(args)),
        )
        decisions = prune_versions(
            fleet, names, keep=args.keep, grace=args.grace, dry_run=args.dry_run
        )
        if not args.dry_run:
            _record_prune(args, [server.address for server in servers], decisions)
    if args.json:
        write_json(decisions)
        return 0
    deleted = "would be deleted" if args.dry_run else "deleted"
    for decision in decisions:
        fate = deleted if decision.delete else "kept"
        write(f"{decision.name} {decision.version}: {fate}: {decision.why}")
    return 0


def _record_prune(args: argparse.Namespace, servers: list[str], decisions: list[Decision]) -> None:
    """Record in the log of rollouts which versions were deleted and why."""
    history = History(args.repository / HISTORY_FILE)
    deleted: dict[str, list[int]] = {}
    for decision in decisions:
        if decision.delete:
            deleted.setdefault(decision.name, []).append(decision.version)
    why = f"keep {args.keep}, older than {args.grace:g} s"
    for name, versions in deleted.items():
        recorder = Recorder(history, action="prune", name=name, why=why, servers=servers)
        recorder.record("done", versions=versions)


def diff(args: argparse.Namespace) -> int:
    """Print how two versions differ."""
    diffs = [
        diff_versions(before, after, k=args.k, ask=not args.without_answers)
        for before, after in _versions_to_compare(args)
    ]
    if args.json:
        write_json(diffs)
    else:
        write("\n".join(map(_diff_text, diffs)))
    return 0


def _versions_to_compare(
    args: argparse.Namespace,
) -> list[tuple[VersionReference, VersionReference]]:
    """Return pairs of versions: the two named, or those of each model that has both."""
    texts = (args.before, args.after)
    named = [find_version(text, root=args.repository) for text in texts if "/" in text]
    if named:
        # A bare version or label belongs to the model of the other.
        before, after = (
            find_version(
                text if "/" in text else str(named[0].path.parent / text), root=args.repository
            )
            for text in texts
        )
        return [(before, after)]
    pairs = []
    for name in _names(args):
        try:
            before, after = (find_version(f"{name}/{text}", root=args.repository) for text in texts)
        except RepositoryError:
            if args.servable:
                raise
        else:
            pairs.append((before, after))
    if not pairs:
        raise RepositoryError(
            f"no model in {args.repository} has both versions {args.before} and {args.after}; "
            "`shortlist versions` lists them"
        )
    return pairs


def _diff_text(diff: VersionDiff) -> str:
    lines = [f"{diff.before} -> {diff.after}"]
    old, new = diff.headlines
    if old is not None and new is not None and old.name == new.name:
        lines.append(f"  {old.name}: {old.value:.4f} -> {new.value:.4f}")
    elif old is not None or new is not None:
        lines.append(f"  {old or 'no metric'} -> {new or 'no metric'}")
    if any(change.what in _HELD_OUT for change in diff.settings):
        lines.append(
            "  ! measured on different held-out interactions, so metrics are not comparable; the "
            "gate `quality` compares versions on the same ones"
        )
    metrics = [change for change in diff.metrics if _SHOWN.search(change.what)]
    for title, changes in (("settings", diff.settings), ("metrics", metrics)):
        lines += [f"  {_change(change)}" for change in changes] or [f"  {title}: the same"]
    if len(metrics) < len(diff.metrics):
        lines.append(
            f"  other metrics that differ (--json lists them): {len(diff.metrics) - len(metrics)}"
        )
    if diff.added is not None:
        lines.append(f"  candidates: {diff.added} new, {diff.lost} lost")
    if diff.overlap is not None:
        overlap = diff.overlap
        lines.append(
            f"  answers: overlap@{overlap.k} {overlap.mean:.4f} over {overlap.users} users, "
            f"{overlap.same_lists:.1%} with the same list"
        )
    else:
        lines.append(f"  answers: not compared: {diff.overlap_problem}")
    return "\n".join(lines)


def _change(change: Change) -> str:
    if isinstance(change.before, list) or isinstance(change.after, list):
        return printable(f"{change.what}: differs")
    return printable(f"{change.what}: {_value(change.before)} -> {_value(change.after)}")


def _value(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
