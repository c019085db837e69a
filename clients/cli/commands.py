"""Verbs that `clients` adds to the `shortlist` command."""

import argparse
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from shortlist.clients import contract
from shortlist.clients.cli.arguments import add_security_arguments

__all__ = ["add_benches", "add_commands"]


def add_commands(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds this package's verbs; imports nothing heavy."""
    _add_query(verbs)
    _add_status(verbs)
    _add_predict(verbs)
    _add_bench(verbs)


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


def _add_connection_options(parser: argparse.ArgumentParser, transport: str) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--transport", choices=("rest", "grpc"), default=transport)
    group.add_argument(
        "--address",
        action="append",
        metavar="HOST:PORT",
        help="server; may be given several times (default: "
        f"{contract.DEFAULT_HOST}:{contract.DEFAULT_REST_PORT} for rest, "
        f":{contract.DEFAULT_GRPC_PORT} for grpc)",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=contract.DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="limit of the whole call (default: %(default)s)",
    )
    add_security_arguments(group)


def _add_servable_options(parser: argparse.ArgumentParser, *, label: bool = True) -> None:
    group = parser.add_argument_group("servable")
    group.add_argument(
        "--model",
        default=contract.DEFAULT_MODEL,
        help="what the export was called (default: %(default)s)",
    )
    group.add_argument("--index", choices=contract.INDEXES, help="index of the model")
    group.add_argument(
        "--servable", metavar="NAME", help="full model name, instead of --model and --index"
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="version number (default: the newest)")
    if label:
        which.add_argument("--label", help="version label, such as stable")


def _add_query(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _parser(
        verbs,
        "query",
        "Ask a running server for the candidates of some users.",
        "shortlist query 42 -k 5 --transport grpc",
    )
    parser.add_argument("users", nargs="+", metavar="USER", help="user id")
    parser.add_argument(
        "-k",
        "--k",
        type=int,
        default=contract.DEFAULT_K,
        help="candidates for each user (default: %(default)s)",
    )
    parser.add_argument(
        "--exclude", action="append", metavar="CANDIDATE", help="leave this candidate id out"
    )
    parser.add_argument(
        "--exclude-seen", action="store_true", help="leave out what each user has interacted with"
    )
    for name, text in (
        ("any", "at least one of these must hold"),
        ("all", "every one of these must hold"),
        ("min", "attribute must be at least NUMBER"),
        ("max", "attribute must be at most NUMBER"),
    ):
        what = "NUMBER" if name in ("min", "max") else "VALUE"
        parser.add_argument(
            f"--filter-{name}",
            action="append",
            default=[],
            metavar=f"ATTRIBUTE={what}",
            help=f"{text}; may be given several times",
        )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_servable_options(parser)
    _add_connection_options(parser, "rest")
    parser.set_defaults(run=_lazily("query"))


def _add_status(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _parser(
        verbs,
        "status",
        "Show which versions of which servables a server has.",
        "shortlist status --address 127.0.0.1:8501",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--wait",
        type=float,
        metavar="SECONDS",
        help="wait until the servable is AVAILABLE, at most this long",
    )
    _add_servable_options(parser)
    _add_connection_options(parser, "rest")
    parser.set_defaults(run=_lazily("status"))


def _add_predict(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _parser(
        verbs,
        "predict",
        "Run any signature of any servable.",
        "shortlist predict --input 'user_id=[\"42\"]' --output scores --json",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help='one input; nested lists for tensors, {"b64": ...} for bytes',
    )
    parser.add_argument(
        "--inputs", metavar="FILE", help="a JSON object of inputs by name; - reads standard input"
    )
    parser.add_argument(
        "--output", action="append", default=[], metavar="NAME", help="print only this output"
    )
    parser.add_argument(
        "--signature",
        default=contract.SERVING_DEFAULT,
        metavar="NAME",
        help="signature name (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_servable_options(parser)
    _add_connection_options(parser, "grpc")
    parser.set_defaults(run=_lazily("predict"))


def _add_bench(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb that the packages share: each adds its own with a function `add_benches`.

    It stands beside the package's `add_commands`, in the module of the same entry point,
    and imports nothing heavy either.
    """
    parser = _parser(
        verbs, "bench", "Measure parts of Shortlist on this machine.", "shortlist bench client"
    )
    benches = parser.add_subparsers(title="benchmarks", metavar="WHAT", dest="bench", required=True)
    for entry in sorted(entry_points(group="shortlist.commands"), key=lambda found: found.name):
        hook = getattr(import_module(entry.module), "add_benches", None)
        if hook is not None:
            hook(benches)


def add_benches(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `bench client`."""
    parser = _parser(
        benches,
        "client",
        "Compare imports and calls of the clients with those of tensorflow-serving-api.",
        "shortlist bench client --calls 500",
    )
    parser.add_argument(
        "--calls",
        type=int,
        default=2000,
        metavar="N",
        help="calls of each kind for one user (default: %(default)s)",
    )
    parser.add_argument(
        "--without-stub",
        action="store_true",
        help="leave out tensorflow-serving-api, whose import alone takes many seconds",
    )
    parser.add_argument(
        "--grpc-address",
        metavar="HOST:PORT",
        help="time calls to this server instead of one that only repeats prepared answers",
    )
    parser.add_argument("--rest-address", metavar="HOST:PORT", help="its REST port")
    parser.add_argument(
        "--servable",
        default=contract.servable_name(contract.DEFAULT_MODEL, contract.DEFAULT_INDEX),
        metavar="NAME",
        help="model name to ask there (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")

    def run(args: argparse.Namespace) -> int:
        from shortlist.clients.bench import command as bench

        return bench.run(args)

    parser.set_defaults(run=run)


def _lazily(name: str) -> Any:
    def run(args: argparse.Namespace) -> int:
        from shortlist.clients.cli import verbs as _verbs

        verb: Any = getattr(_verbs, name)
        return int(verb(args))

    return run
