"""Verbs on a model repository: `versions`, `prune` and `diff`."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.connection import add_connection_arguments, security

if TYPE_CHECKING:
    from shortlist.serving.rollout.diff import VersionDiff
    from shortlist.serving.rollout.prune import Decision
    from shortlist.serving.rollout.replica import GrpcServer
    from shortlist.serving.rollout.versions import VersionRow

__all__ = ["add_commands"]


def add_commands(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verbs; imports nothing heavy."""
    versions = _parser(
        verbs,
        "versions",
        "List the versions of a model repository.",
        "Shows each version with its labels, states on the servers, hit rates, size and gates.",
        "shortlist versions --repository models",
    )
    _add_servers(versions)
    versions.set_defaults(run=_versions)
    prune = _parser(
        verbs,
        "prune",
        "Delete old versions that nobody serves.",
        "Never deletes a version that a known server holds, that a label points at, that the "
        "configuration file asks for, or that is young. Known are the servers of the last "
        "rollout of each model, or those that --address names.",
        "shortlist prune --repository models --keep 3",
    )
    prune.add_argument(
        "--keep", type=int, default=3, metavar="N", help="newest versions that stay (default: 3)"
    )
    prune.add_argument(
        "--grace",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="age below which a version stays (default: %(default)g)",
    )
    prune.add_argument(
        "--offline",
        action="store_true",
        help="no server runs: what the configuration file asks for and the newest stay",
    )
    prune.add_argument("--dry-run", action="store_true", help="say what would go; delete nothing")
    _add_servers(prune)
    prune.set_defaults(run=_prune)
    diff = _parser(
        verbs,
        "diff",
        "Compare two versions of a model.",
        "Shows what differs in configuration, data, metrics and candidates, and how much of the "
        "one's answers the other gives too.",
        "shortlist diff 1 2 --servable retrieval_ivf --repository models",
    )
    diff.add_argument("before", type=int, metavar="A", help="version")
    diff.add_argument("after", type=int, metavar="B", help="version to compare with it")
    diff.add_argument("-k", "--k", type=int, default=10, help="cut-off (default: %(default)s)")
    diff.add_argument(
        "--without-answers", action="store_true", help="do not load and ask the versions"
    )
    _add_where(diff)
    diff.set_defaults(run=_diff)


def _parser(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    more: str,
    example: str,
) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=text[0].lower() + text[1:].rstrip("."),
        description=f"{text} {more}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help="model repository (default: %(default)s)",
    )
    parser.add_argument(
        "--servable",
        action="append",
        metavar="NAME",
        help="model name, such as retrieval_ivf; may be given again (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_servers(parser: argparse.ArgumentParser) -> None:
    _add_where(parser)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="model_config_file of the servers (default: the one that `shortlist serve` writes)",
    )
    add_connection_arguments(
        parser, "gRPC address of a server; repeatable (default: servers of the last rollouts)"
    )


def _config_path(args: argparse.Namespace) -> Path:
    from shortlist.serving.repository.server_config import CONFIG_FILE

    return Path(args.config if args.config is not None else args.repository / CONFIG_FILE)


@contextmanager
def _servers(args: argparse.Namespace) -> "Iterator[list[GrpcServer]]":
    from shortlist.serving.rollout.history import HISTORY_FILE, History
    from shortlist.serving.rollout.replica import GrpcServer

    addresses = args.address or History(args.repository / HISTORY_FILE).known_servers()
    if getattr(args, "offline", False):
        if args.address:
            raise ValueError("--offline and --address contradict each other; give one of them")
        addresses = []
    with ExitStack() as stack:
        yield [
            stack.enter_context(GrpcServer(address, security=security(args)))
            for address in addresses
        ]


def _names(args: argparse.Namespace) -> list[str]:
    from shortlist.serving.errors import RepositoryError
    from shortlist.serving.repository.local import ModelRepository

    models = ModelRepository(args.repository).models()
    unknown = sorted(set(args.servable or ()) - set(models))
    if unknown or not models:
        there = ", ".join(models) or "none"
        wanted = f"no model {unknown[0]!r}" if unknown else "no model"
        raise RepositoryError(f"{wanted} in {args.repository}; there are: {there}")
    return list(dict.fromkeys(args.servable)) if args.servable else models


def _versions(args: argparse.Namespace) -> int:
    from shortlist.serving.repository.local import ModelRepository
    from shortlist.serving.rollout.versions import list_versions

    with _servers(args) as servers:
        rows, unreachable = list_versions(
            ModelRepository(args.repository),
            _names(args),
            config_path=_config_path(args),
            servers=servers,
        )
    for address, reason in unreachable.items():
        sys.stderr.write(f"shortlist: {address} does not answer: {reason}\n")
    if args.json:
        _write(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _write(_table(rows))
        newest = next((row for row in rows if row.report is not None), None)
        if newest is not None:
            _write(f"report on {newest.name} {newest.version}: {newest.report}")
    return 0


def _table(rows: "list[VersionRow]") -> str:
    head = ("model", "version", "labels", "state", "hit rate@10", "MB", "gates", "created")
    body = [
        (
            row.name,
            str(row.version),
            " ".join(row.labels) or "-",
            ", ".join(f"{state} {address}" for address, state in row.states.items()) or "-",
            _hit_rate(row.metrics),
            f"{row.size_bytes / 1e6:.1f}",
            row.problem or ", ".join(f"{count} {what}" for what, count in row.gates.items()) or "-",
            row.created,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [head, *body]) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *body]
    )


def _hit_rate(metrics: Any) -> str:
    try:
        return f"{float(metrics['seen_excluded']['hit_rate@10']):.4f}"
    except (KeyError, TypeError, ValueError):
        return "-"


def _prune(args: argparse.Namespace) -> int:
    from shortlist.serving.repository.local import ModelRepository
    from shortlist.serving.rollout.config import ConfigFile
    from shortlist.serving.rollout.fleet import Fleet
    from shortlist.serving.rollout.prune import prune

    names = _names(args)
    with _servers(args) as servers:
        fleet = Fleet(
            repository=ModelRepository(args.repository),
            servers=tuple(servers),
            config_file=ConfigFile(_config_path(args)),
        )
        decisions = prune(fleet, names, keep=args.keep, grace=args.grace, dry_run=args.dry_run)
        if not args.dry_run:
            _record_prune(args, [server.address for server in servers], decisions)
    if args.json:
        _write(json.dumps([asdict(decision) for decision in decisions], indent=2))
        return 0
    done = "would go" if args.dry_run else "deleted"
    for decision in decisions:
        what = done if decision.delete else "stays"
        _write(f"{decision.name} {decision.version}: {what}: {decision.why}")
    return 0


def _record_prune(
    args: argparse.Namespace, servers: list[str], decisions: "list[Decision]"
) -> None:
    """Tells the log of rollouts which versions are gone and why they were free to go."""
    from shortlist.serving.rollout.history import HISTORY_FILE, History, Recorder

    history = History(args.repository / HISTORY_FILE)
    for name in dict.fromkeys(one.name for one in decisions if one.delete):
        gone = [one.version for one in decisions if one.delete and one.name == name]
        why = f"keep {args.keep}, older than {args.grace:g} s"
        recorder = Recorder(history, action="prune", name=name, why=why, servers=servers)
        recorder.record("done", versions=gone)


def _diff(args: argparse.Namespace) -> int:
    from shortlist.serving.errors import RepositoryError
    from shortlist.serving.repository.local import ModelRepository
    from shortlist.serving.rollout.diff import diff_versions

    repository = ModelRepository(args.repository)
    both = {args.before, args.after}
    names = [name for name in _names(args) if args.servable or both <= {*repository.versions(name)}]
    if not names:
        raise RepositoryError(
            f"no model in {args.repository} has both versions {args.before} and {args.after}; "
            "`shortlist versions` lists them"
        )
    found = [
        diff_versions(
            repository, name, args.before, args.after, k=args.k, ask=not args.without_answers
        )
        for name in names
    ]
    if args.json:
        _write(json.dumps([asdict(one) for one in found], indent=2))
    else:
        _write("\n".join(_diff_text(one) for one in found))
    return 0


def _diff_text(diff: "VersionDiff") -> str:
    lines = [f"{diff.name}: version {diff.versions[0]} -> {diff.versions[1]}"]
    for title, changes in (("settings", diff.settings), ("metrics", diff.metrics)):
        lines += [
            f"  {change.what}: {_value(change.before)} -> {_value(change.after)}"
            for change in changes
        ] or [f"  {title}: the same"]
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


def _value(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
