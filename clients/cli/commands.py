"""Parsers of the verbs that `clients` adds to the `shortlist` command."""

from shortlist.clients import contract
from shortlist.clients.cli.connection import add_client_arguments, add_servable_arguments
from shortlist.clients.cli.parser import Parsers, add_parser, command_modules
from shortlist.clients.cli.retrieval import add_retrieval_arguments, add_tensor_arguments

__all__ = ["add_benches", "add_commands"]

_CLI = "shortlist.clients.cli"


def add_commands(verbs: Parsers) -> None:
    """Add `query`, `status`, `predict`, `bench` and `completion`; imports nothing heavy."""
    _add_query(verbs)
    _add_status(verbs)
    _add_predict(verbs)
    _add_bench(verbs)
    _add_completion(verbs)


def _add_query(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "query",
        "Retrieve candidates for users from a running server.",
        example="shortlist query 42 -k 5 --transport grpc",
        details="A history or features personalise the candidates of unknown users, too. Models "
        "that Shortlist did not export, such as a saved TFRS index, answer as well: --feature "
        "gives their other inputs.",
        run=f"{_CLI}.query:query",
    )
    parser.add_argument(
        "users",
        nargs="*",
        metavar="USER",
        help="user id; optional with --history, --feature or --history-file",
    )
    parser.add_argument(
        "--history",
        action="append",
        metavar="CANDIDATE",
        help="candidate id of an event of the user (or without a user), oldest first; repeatable",
    )
    parser.add_argument(
        "--history-file",
        metavar="FILE",
        help='JSON lines such as {"user_id": "42", "history": ["a", "b"], "ages": [60, 5], '
        '"weights": [1, 2], "features": {"device": "mobile"}}, all keys optional; '
        "- for standard input",
    )
    parser.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="user or context feature of every USER (or without one), or input of a model that "
        "Shortlist did not export; repeatable",
    )
    add_retrieval_arguments(parser)
    add_tensor_arguments(parser)
    group = parser.add_argument_group("shards")
    group.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="number of shards of the model; --address then names one server for all of them, or "
        "one for each in order",
    )
    group.add_argument("--partial", action="store_true", help="answer even if some shards are down")
    add_servable_arguments(parser)
    add_client_arguments(parser)


def _add_status(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "status",
        "Show the versions of a server's servables and their states.",
        example="shortlist status --address 127.0.0.1:8501",
        run=f"{_CLI}.status:status",
    )
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="wait until the servable is AVAILABLE, at most this long",
    )
    add_servable_arguments(parser)
    add_client_arguments(parser)


def _add_predict(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "predict",
        "Run any signature of any servable.",
        example="shortlist predict --input 'user_id=[\"42\"]' --output scores --json",
        run=f"{_CLI}.predict:predict",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help='input; nested lists for tensors, {"b64": ...} for bytes; repeatable',
    )
    parser.add_argument(
        "--inputs", metavar="FILE", help="JSON object of inputs by name; - for standard input"
    )
    parser.add_argument(
        "--output", action="append", default=[], metavar="NAME", help="output to print; repeatable"
    )
    parser.add_argument(
        "--signature",
        default=contract.SERVING_DEFAULT,
        metavar="NAME",
        help="signature name (default: %(default)s)",
    )
    add_servable_arguments(parser)
    add_client_arguments(parser)


def _add_bench(verbs: Parsers) -> None:
    """Add the verb that the packages share.

    Each adds its own benchmarks by `add_benches`, next to its `add_commands`.
    """
    parser = add_parser(
        verbs,
        "bench",
        "Measure parts of Shortlist on this machine.",
        example="shortlist bench client",
    )
    benches = parser.add_subparsers(title="benchmarks", metavar="WHAT", dest="bench", required=True)
    for module in command_modules():
        if hasattr(module, "add_benches"):
            module.add_benches(benches)


def _add_completion(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "completion",
        "Print a script that completes commands, options and files in a shell.",
        details="For bash, write it to ~/.local/share/bash-completion/completions/shortlist; for "
        "zsh, to _shortlist in a folder of $fpath; for tcsh, to a file that ~/.tcshrc sources.",
        example="shortlist completion bash",
        run=f"{_CLI}.completion:completion",
        json=False,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="shell")


def add_benches(benches: Parsers) -> None:
    """Add `bench client`."""
    parser = add_parser(
        benches,
        "client",
        "Compare imports and calls of the clients with those of tensorflow-serving-api.",
        example="shortlist bench client --calls 500",
        run="shortlist.clients.bench.command:run",
    )
    parser.add_argument(
        "--calls",
        type=int,
        default=2000,
        metavar="N",
        help="calls of each kind for one user; with --threads of all threads (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="measure instead how N threads that share a client fare: failures, tries, latency",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="users of one call with --threads (default: 1)",
    )
    parser.add_argument(
        "--without-stub",
        action="store_true",
        help="omit tensorflow-serving-api, whose import alone takes many seconds",
    )
    parser.add_argument(
        "--grpc-address",
        metavar="HOST:PORT",
        help="server to call (default: a built-in one with prepared answers)",
    )
    parser.add_argument("--rest-address", metavar="HOST:PORT", help="REST port of that server")
    parser.add_argument(
        "--servable",
        metavar="NAME",
        help=f"servable of that server (default: {contract.DEFAULT_SERVABLE})",
    )
