"""Parsers of `shortlist log`."""

import argparse
from pathlib import Path

from shortlist.clients import contract
from shortlist.clients.cli.connection import add_connection_arguments
from shortlist.clients.cli.parser import Parsers, add_parser

__all__ = ["add_log"]

_RUN = "shortlist.serving.cli.log"
_USE = "shortlist.serving.cli.log_uses"


def add_log(verbs: Parsers) -> None:
    """Add `log` and its parts."""
    log = add_parser(
        verbs,
        "log",
        "Read request logs and put them to use.",
        details="Request logs are the files that the embedded server writes for a model's "
        "`logging_config`, and clients with the hook `RequestLog`. Every LOG is a file, a folder "
        "or a pattern; files may still be in use.",
        example="shortlist log stats logs",
    )
    parts = log.add_subparsers(title="parts", metavar="PART", dest="part", required=True)
    _add_show(parts)
    _add(parts, "stats", "Print rates, latencies, users and versions of recorded requests.")
    _add_warmup(parts)
    _add_golden(parts)
    _add_replay(parts)
    _add_train(parts)


def _add(
    parts: Parsers,
    name: str,
    summary: str,
    *,
    details: str = "",
    arguments: str = "",
    module: str = _RUN,
    user: bool = False,
) -> argparse.ArgumentParser:
    parser = add_parser(
        parts,
        name,
        summary,
        details=details,
        example=f"shortlist log {name} logs{arguments}",
        run=f"{module}:{name}",
    )
    parser.add_argument("log", nargs="+", metavar="LOG", help="file, folder or pattern")
    group = parser.add_argument_group("records")
    group.add_argument("--model", metavar="NAME", help="only records of this model")
    version = group.add_mutually_exclusive_group()
    version.add_argument("--of-version", type=int, metavar="N", help="only answers of this version")
    version.add_argument(
        "--of-label", metavar="LABEL", help="only requests that asked for this label"
    )
    if user:
        group.add_argument("--user", metavar="USER", help="only requests for this user id")
    return parser


def _add_show(parts: Parsers) -> None:
    parser = _add(
        parts,
        "show",
        "Print recorded requests and their answers.",
        details="--json prints a line of JSON per record, with all inputs and outputs.",
        arguments=" -n 5",
        user=True,
    )
    parser.add_argument(
        "-n",
        "--last",
        type=int,
        default=20,
        metavar="N",
        help="latest records to print, 0 for all (default: %(default)s)",
    )


def _add_warmup(parts: Parsers) -> None:
    parser = _add(
        parts,
        "warmup",
        "Make warm-up records of recorded requests.",
        details="Takes requests to every signature, no user twice, and drops the answers. With "
        "--version-dir the version runs them first, and only those that it answers are written, "
        "since a record that fails keeps a version from loading. The file holds user ids and "
        "histories of real users unless the log left them out.",
        arguments=" --output tf_serving_warmup_requests",
        module=_USE,
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=Path, metavar="FILE", help="file to write")
    target.add_argument(
        "--version-dir",
        metavar="DIR",
        help="version whose warm-up records to replace: <repository>/<model>/<version>; no server "
        "may hold it, nor may the servers' configuration name it",
    )
    parser.add_argument(
        "--requests", type=int, default=100, metavar="N", help="most records (default: %(default)s)"
    )
    parser.add_argument(
        "--batchable-only",
        action="store_true",
        help="omit requests that a server with --enable_batching could not batch",
    )
    add_connection_arguments(
        parser,
        "gRPC address of a server that might hold the version; repeatable (default: servers of "
        "the last rollouts)",
    )


def _add_golden(parts: Parsers) -> None:
    parser = _add(
        parts,
        "golden",
        "Write recorded queries as JSON lines.",
        details="One line per user with user_id, history, ages, weights and features, as "
        "`shortlist query --history-file` takes them. For a model that Shortlist did not export, "
        "the inputs by name, as `shortlist publish --queries` takes them.",
        arguments=" --requests 100 --output queries.jsonl",
        module=_USE,
    )
    parser.add_argument(
        "--requests", type=int, default=100, metavar="N", help="most lines (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="file (default: stdout)")


def _add_replay(parts: Parsers) -> None:
    parser = _add(
        parts,
        "replay",
        "Put recorded requests on a server as load, and measure latencies.",
        details="Sends each request when it is due, whether earlier ones are answered or not. "
        "Latencies count from that moment, so a server that stalls is charged for all requests "
        "that would have come meanwhile; the figures from the moment of sending are shown next "
        "to them. To compare two versions' answers, use `shortlist replay`.",
        arguments=f" --address {contract.DEFAULT_GRPC_ADDRESS} --rate 2x",
        module=_USE,
    )
    parser.add_argument(
        "--rate",
        default="recorded",
        metavar="RATE",
        help="when requests are due: recorded, a multiple such as 2x, or requests per second such "
        "as 150 (default: %(default)s)",
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=10_000,
        metavar="N",
        help="requests to read, from the start of the log (default: %(default)s)",
    )
    parser.add_argument(
        "--duration",
        type=float,
        metavar="SECONDS",
        help="time to go on for, if need be with the same requests again (default: send each once)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=contract.DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="timeout of one request (default: %(default)g)",
    )
    parser.add_argument(
        "--in-flight",
        type=int,
        default=256,
        metavar="N",
        help="most requests at a time, as of N connections; others wait (default: %(default)s)",
    )
    group = parser.add_argument_group("servable")
    group.add_argument(
        "--servable", metavar="NAME", help="model to ask (default: the recorded one)"
    )
    version = group.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, help="version to ask (default: the label)")
    version.add_argument("--label", help="label to ask (default: the recorded one, if any)")
    add_connection_arguments(
        parser,
        f"gRPC address of a server; repeatable (default: {contract.DEFAULT_GRPC_ADDRESS})",
    )


def _add_train(parts: Parsers) -> None:
    parser = _add(
        parts,
        "train",
        "Write what users were shown as a Parquet file.",
        details="One row per candidate of each list: user_id, candidate_id, rank, score, "
        "timestamp, model, version and label. Impressions are not choices: join them with the "
        "clicks to train on.",
        arguments=" --output impressions.parquet -k 10",
        module=_USE,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="Parquet file")
    parser.add_argument(
        "-k",
        "--k",
        type=int,
        metavar="K",
        help="candidates of each list that users saw (default: all that the server answered, "
        "which can be more than the client asked for)",
    )
