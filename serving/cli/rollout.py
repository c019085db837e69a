"""Verbs of rollouts: `canary`, `promote`, `rollback`, `abort` and `rollout …`."""

import argparse
from collections.abc import Callable

from shortlist.clients.cli.connection import DEFAULT_GRPC_ADDRESS, add_connection_arguments

__all__ = ["add_commands"]

ACTIONS = ("canary", "promote", "rollback", "abort", "finish")


def add_commands(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verbs; imports nothing heavy."""
    _add_canary(verbs)
    _add_way(
        verbs,
        "promote",
        "Make the canary stable; the version before stays loaded, one label move away.",
        "shortlist promote --repository models --servable retrieval_ivf",
        version="the canary's version, to be sure; or the first version of a model that has none",
    ).add_argument(
        "--soak",
        type=float,
        metavar="SECONDS",
        help="keep the version before for so long, then unload it (default: keep it until the "
        "next canary)",
    )
    _add_way(
        verbs,
        "rollback",
        "Go back to the version before the latest change, by one label move.",
        "shortlist rollback --repository models --servable retrieval_ivf",
        to="roll back to this version, loading it if needed",
    )
    _add_way(
        verbs,
        "abort",
        "End a canary: everybody gets stable again and the canary's version is unloaded.",
        "shortlist abort --repository models --servable retrieval_ivf",
    )
    _add_rollout(verbs)


def _parser(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str, example: str
) -> argparse.ArgumentParser:
    return verbs.add_parser(
        name,
        help=text[0].lower() + text[1:].rstrip("."),
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_where(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where")
    group.add_argument(
        "--repository",
        default="models",
        metavar="DIR",
        help="model repository (default: %(default)s)",
    )
    group.add_argument(
        "--servable",
        action="append",
        metavar="NAME",
        help="model name, such as retrieval_ivf; may be given again (default: every model of "
        "the repository that the servers are given)",
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="model_config_file that the servers start from (default: what `shortlist serve` "
        "writes into the repository)",
    )
    group.add_argument(
        "--polled",
        action="store_true",
        help="the servers poll that file (--model_config_file_poll_wait_seconds): write it "
        "instead of sending reloads",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="limit of one step on all servers (default: %(default)g)",
    )
    group.add_argument(
        "--poll-interval",
        type=float,
        default=0.2,
        metavar="SECONDS",
        help="pause between two questions to a server (default: %(default)g)",
    )
    add_connection_arguments(
        parser,
        f"gRPC address of a server; give every replica (default: {DEFAULT_GRPC_ADDRESS})",
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how")
    group.add_argument(
        "--skip-unreachable",
        action="store_true",
        help="go on without servers that do not answer; they get it when they start again",
    )
    group.add_argument("--why", default="", metavar="TEXT", help="reason, for the log")
    group.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_canary(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _parser(
        verbs,
        "canary",
        "Load a version on every server and give it the label canary.",
        "shortlist canary 2 --repository models --servable retrieval_ivf --percent 5",
    )
    parser.add_argument("version", type=int, metavar="VERSION", help="version to try")
    parser.add_argument(
        "--percent",
        type=float,
        default=5.0,
        help="share of requests that applications are to send it, written to split.json beside "
        "the configuration (default: %(default)g)",
    )
    _add_judge(parser)
    _add_where(parser)
    _add_how(parser)
    parser.set_defaults(run=_lazily("canary"))


def _add_judge(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("judge")
    group.add_argument(
        "--judge",
        action="store_true",
        help="compare the canary with stable, then promote it or roll it back, and say why",
    )
    group.add_argument(
        "--queries",
        metavar="FILE",
        help="user ids to ask both for, one a line (default: those that the version lists)",
    )
    group.add_argument(
        "--events",
        metavar="FILE",
        help="judge real traffic instead: what applications append with "
        "shortlist.clients.hooks.event_log.EventLog",
    )
    group.add_argument("--record", metavar="FILE", help="write the judgement there as JSON")
    for option, default, text in (
        ("--duration", 120.0, "seconds to compare for"),
        ("--rate", 20.0, "pairs of requests per second"),
        ("--request-timeout", 5.0, "seconds for one request"),
        ("--max-errors-more", 0.01, "share of requests by which it may fail more often"),
        ("--max-slow-more", 0.25, "share of requests by which it may be the slower one more often"),
        ("--slow-ratio", 1.25, "how many times as long counts as slower"),
        ("--min-overlap", 0.05, "least share of stable's top 10 that it returns too"),
        ("--alpha", 0.01, "probability of a wrong verdict"),
    ):
        group.add_argument(
            option, type=float, default=default, metavar="NUMBER", help=f"{text} ({default:g})"
        )


def _add_way(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    example: str,
    *,
    version: str | None = None,
    to: str | None = None,
) -> argparse.ArgumentParser:
    parser = _parser(verbs, name, text, example)
    if version is not None:
        parser.add_argument("version", type=int, nargs="?", metavar="VERSION", help=version)
    if to is not None:
        parser.add_argument("--to", dest="version", type=int, metavar="VERSION", help=to)
    _add_where(parser)
    _add_how(parser)
    parser.set_defaults(run=_lazily(name))
    return parser


def _add_rollout(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _parser(
        verbs,
        "rollout",
        "Plan, apply and look at rollouts.",
        "shortlist rollout status --repository models",
    )
    parts = parser.add_subparsers(title="parts", metavar="PART", dest="part", required=True)
    for name, text in (
        ("plan", "Print the steps of an action; do nothing."),
        ("apply", "Carry out an action."),
    ):
        part = _parser(parts, name, text, f"shortlist rollout {name} canary 2 --repository models")
        part.add_argument("action", choices=ACTIONS)
        part.add_argument("version", type=int, nargs="?", metavar="VERSION")
        _add_where(part)
        _add_how(part)
        part.set_defaults(run=_lazily(f"rollout_{name}"))
    status = _parser(
        parts,
        "status",
        "Show versions, labels and disagreements of every server.",
        "shortlist rollout status --repository models",
    )
    _add_where(status)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_lazily("rollout_status"))
    log = _parser(
        parts,
        "log",
        "Show who rolled out what, when and why.",
        "shortlist rollout log --repository models",
    )
    log.add_argument("--repository", default="models", metavar="DIR", help="model repository")
    log.add_argument("--last", type=int, default=20, metavar="N", help="rollouts to show")
    log.add_argument("--json", action="store_true", help="print the records, one a line")
    log.set_defaults(run=_lazily("rollout_log"))
    lint = _parser(
        parts,
        "lint",
        "Find what a server would refuse, or accept and then break, in a configuration.",
        "shortlist rollout lint --repository models",
    )
    lint.add_argument("--repository", default="models", metavar="DIR", help="model repository")
    lint.add_argument("--config", metavar="FILE", help="configuration file")
    lint.add_argument("--json", action="store_true", help="print JSON")
    lint.set_defaults(run=_lazily("rollout_lint"))


def _lazily(name: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        from shortlist.serving.cli import rollout_verbs as _verbs

        verb: Callable[[argparse.Namespace], int] = getattr(_verbs, name)
        return verb(args)

    return run
