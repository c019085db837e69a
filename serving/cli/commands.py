"""Parsers of the verbs that `serving` adds to the `shortlist` command."""

import argparse
from pathlib import Path

from shortlist.clients import contract
from shortlist.clients.cli.connection import add_connection_arguments
from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.serving.cli.log_parsers import add_log
from shortlist.serving.cli.servers import add_repository, add_server_verbs

__all__ = ["add_benches", "add_commands", "add_fleet_arguments", "add_rollout_options"]

_CLI = "shortlist.serving.cli"
_ACTIONS = ("canary", "promote", "rollback", "abort", "finish")


def add_commands(verbs: Parsers) -> None:
    """Add this package's verbs; imports nothing heavy."""
    add_server_verbs(verbs)
    _add_repository_verbs(verbs)
    _add_canary(verbs)
    _add_moves(verbs)
    _add_rollout(verbs)
    add_log(verbs)


def add_benches(benches: Parsers) -> None:
    """Add `bench server`."""
    parser = add_parser(
        benches,
        "server",
        "Measure model servers over REST and gRPC.",
        details="Prints requests per second and latencies on brute-force servables that it "
        "generates.",
        example="shortlist bench server --quick",
        run="shortlist.serving.bench.command:run",
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="server to start and compare with the embedded one; {flags} in COMMAND stands for "
        "TensorFlow Serving's flags: 'real=tensorflow_model_server {flags}'; repeatable",
    )
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="NAME=REST,GRPC",
        help="running server that serves the sample servables (see --repository); repeatable",
    )
    parser.add_argument("--no-embedded", action="store_true", help="omit the embedded server")
    parser.add_argument(
        "--request-log",
        action="store_true",
        help="measure the embedded server with a log of every request, too",
    )
    parser.add_argument(
        "--repository",
        metavar="DIR",
        help="folder for the sample servables, kept for other servers and later runs",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        help="seconds per row (default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure only the small servable: one connection, batch 1, half a second per row",
    )


# --- the model repository -----------------------------------------------------------


def _add_repository_verbs(verbs: Parsers) -> None:
    versions = add_parser(
        verbs,
        "versions",
        "List the versions of a model repository.",
        details="Shows each version with its labels, states on the servers, headline metric, size "
        "and gates.",
        example="shortlist versions --repository models",
        run=f"{_CLI}.repository:versions",
    )
    _add_models(versions)
    _add_known_servers(versions)
    prune = add_parser(
        verbs,
        "prune",
        "Delete old versions that are not in use.",
        details="Never deletes a version that a known server holds, a label points at or the "
        "configuration file asks for, nor a young one. Known servers are those of the last "
        "rollout of each model, or those that --address names.",
        example="shortlist prune --repository models --keep 3",
        run=f"{_CLI}.repository:prune",
    )
    prune.add_argument(
        "--keep",
        type=int,
        default=3,
        metavar="N",
        help="newest versions to keep (default: %(default)s)",
    )
    prune.add_argument(
        "--grace",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="age below which a version is kept (default: %(default)g)",
    )
    prune.add_argument(
        "--offline",
        action="store_true",
        help="no server runs: keep what the configuration file asks for, and the newest versions",
    )
    prune.add_argument("--dry-run", action="store_true", help="print the plan; delete nothing")
    _add_models(prune)
    _add_known_servers(prune)
    diff = add_parser(
        verbs,
        "diff",
        "Compare two versions.",
        details="Shows differences in configuration, data, metrics and candidates, and how far "
        "the answers of the two versions agree. A and B are <model>/<version>, in --repository or "
        "with its path, or only <version>, of --servable or of every model that has both. A label "
        "such as stable stands for its version.",
        example="shortlist diff retrieval_ivf/1 retrieval_ivf/2 --repository models",
        run=f"{_CLI}.repository:diff",
    )
    diff.add_argument("before", metavar="A", help="version, such as models/retrieval_ivf/3")
    diff.add_argument("after", metavar="B", help="version to compare it with")
    diff.add_argument("-k", "--k", type=int, default=10, help="cut-off (default: %(default)s)")
    diff.add_argument(
        "--without-answers", action="store_true", help="do not load the versions to compare answers"
    )
    _add_models(diff)


# --- rollouts -----------------------------------------------------------------------


def _add_canary(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "canary",
        "Load a version on every server and give it the label canary.",
        example="shortlist canary 2 --repository models --servable retrieval_ivf --percent 5",
        run=f"{_CLI}.rollout:canary",
    )
    parser.add_argument("version", type=int, metavar="VERSION", help="version to try")
    parser.add_argument(
        "--percent",
        type=float,
        default=5.0,
        help="percentage of requests for the canary, written to split.json next to the "
        "configuration file for applications to read (default: %(default)g)",
    )
    _add_judge(parser)
    add_fleet_arguments(parser)
    add_rollout_options(parser)


def _add_judge(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("judge")
    group.add_argument(
        "--judge",
        action="store_true",
        help="compare the canary with stable, then promote it or roll it back",
    )
    group.add_argument(
        "--queries",
        metavar="FILE",
        help="request log, or user ids, one per line, to send to both (default: the version's own)",
    )
    group.add_argument(
        "--events",
        metavar="FILE",
        help="judge real traffic instead, recorded by applications with "
        "shortlist.clients.hooks.event_log.EventLog",
    )
    group.add_argument("--record", metavar="FILE", help="file for the judgement, as JSON")
    for option, default, text in (
        ("--duration", 120.0, "duration of the comparison in seconds"),
        ("--rate", 20.0, "pairs of requests per second"),
        ("--request-timeout", 5.0, "timeout of one request in seconds"),
        ("--max-errors-more", 0.01, "largest excess of failed requests, as a share"),
        ("--max-slow-more", 0.25, "largest excess of slower requests, as a share"),
        ("--slow-ratio", 1.25, "ratio of latencies that counts as slower"),
        ("--min-overlap", 0.05, "least share of stable's top 10 in the canary's"),
        ("--alpha", 0.01, "probability of a wrong verdict"),
    ):
        group.add_argument(
            option,
            type=float,
            default=default,
            metavar="NUMBER",
            help=f"{text} (default: %(default)g)",
        )


def _add_moves(verbs: Parsers) -> None:
    example = "--repository models --servable retrieval_ivf"
    promote = add_parser(
        verbs,
        "promote",
        "Make the canary stable; the previous version stays loaded, one label move away.",
        example=f"shortlist promote {example}",
        run=f"{_CLI}.rollout:promote",
    )
    promote.add_argument(
        "version",
        type=int,
        nargs="?",
        metavar="VERSION",
        help="version of the canary, as a check; or the first version of a model that has none",
    )
    promote.add_argument(
        "--soak",
        type=float,
        metavar="SECONDS",
        help="unload the previous version after this time (default: at the next canary)",
    )
    rollback = add_parser(
        verbs,
        "rollback",
        "Go back to the version before the latest change, by one label move.",
        example=f"shortlist rollback {example}",
        run=f"{_CLI}.rollout:rollback",
    )
    rollback.add_argument(
        "--to",
        dest="version",
        type=int,
        metavar="VERSION",
        help="version to roll back to, loaded if needed",
    )
    abort = add_parser(
        verbs,
        "abort",
        "End a canary: all requests get stable again and the canary's version is unloaded.",
        example=f"shortlist abort {example}",
        run=f"{_CLI}.rollout:abort",
    )
    for parser in (promote, rollback, abort):
        add_fleet_arguments(parser)
        add_rollout_options(parser)


def _add_rollout(verbs: Parsers) -> None:
    rollout = add_parser(
        verbs,
        "rollout",
        "Plan, apply and inspect rollouts.",
        example="shortlist rollout status --repository models",
    )
    parts = rollout.add_subparsers(title="parts", metavar="PART", dest="part", required=True)

    def add(name: str, summary: str, arguments: str = "") -> argparse.ArgumentParser:
        return add_parser(
            parts,
            name,
            summary,
            example=f"shortlist rollout {name}{arguments} --repository models",
            run=f"{_CLI}.rollout:rollout_{name}",
        )

    for name, summary in (
        ("plan", "Print the steps of an action; do nothing."),
        ("apply", "Carry out an action."),
    ):
        parser = add(name, summary, " canary 2")
        parser.add_argument("action", choices=_ACTIONS)
        parser.add_argument("version", type=int, nargs="?", metavar="VERSION")
        add_fleet_arguments(parser)
        add_rollout_options(parser)
    add_fleet_arguments(add("status", "Show versions, labels and disagreements of every server."))
    log = add("log", "Show who rolled out what, when and why.")
    add_repository(log)
    log.add_argument(
        "--last", type=int, default=20, metavar="N", help="rollouts to show (default: %(default)s)"
    )
    lint = add(
        "lint", "Find what a server would refuse, or accept and then break, in a configuration."
    )
    add_repository(lint)
    _add_config_file(lint)
    lint.add_argument(
        "--allow_version_labels_for_unavailable_models",
        dest="labels_flag",
        nargs="?",
        const="true",
        choices=["true", "false"],
        help="the servers' flag of this name, without which they do not start with labels "
        "(default: true for the files of `shortlist serve` and `stack`, false for others)",
    )


# --- options that verbs share -------------------------------------------------------


def _add_models(parser: argparse.ArgumentParser, default: str = "all") -> None:
    add_repository(parser)
    parser.add_argument(
        "--servable",
        action="append",
        metavar="NAME",
        help=f"model name, such as retrieval_ivf; repeatable (default: {default})",
    )


def _add_config_file(parser: argparse.ArgumentParser, *, repeatable: bool = False) -> None:
    several = "; repeatable if servers hold different shards" if repeatable else ""
    parser.add_argument(
        "--config",
        type=Path,
        action="append" if repeatable else "store",
        metavar="FILE",
        help=f"model_config_file of the servers{several} (default: the one that `shortlist serve` "
        "writes into the repository)",
    )


def _add_known_servers(parser: argparse.ArgumentParser) -> None:
    _add_config_file(parser)
    add_connection_arguments(
        parser, "gRPC address of a server; repeatable (default: servers of the last rollouts)"
    )


def add_fleet_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names servers and models, which `serving.cli.fleet` reads."""
    _add_models(parser, "every model of the repository in the servers' configuration")
    _add_config_file(parser, repeatable=True)
    parser.add_argument(
        "--polled",
        action="store_true",
        help="write the configuration file instead of sending reloads, for servers that poll it "
        "(--model_config_file_poll_wait_seconds)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="timeout of one step on all servers (default: %(default)g)",
    )
    parser.add_argument(
        "--poll-interval",
        type=float,
        default=0.2,
        metavar="SECONDS",
        help="interval between status requests to a server (default: %(default)g)",
    )
    add_connection_arguments(
        parser,
        f"gRPC address of a server; give every replica (default: {contract.DEFAULT_GRPC_ADDRESS})",
    )


def add_rollout_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a rollout."""
    group = parser.add_argument_group("rollout")
    group.add_argument(
        "--skip-unreachable",
        action="store_true",
        help="go on without servers that do not answer; they follow when they start again",
    )
    group.add_argument("--why", default="", metavar="TEXT", help="reason, for the log")
    group.add_argument("--dry-run", action="store_true", help="print the plan; change nothing")
