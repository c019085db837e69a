"""Options of all verbs that talk to a server: its address, TLS, headers and the servable."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from shortlist.clients import contract
from shortlist.clients.cli.parser import name_value_pairs
from shortlist.clients.connection import Security, Tls

if TYPE_CHECKING:
    from shortlist.clients._client import RetrievalClient
    from shortlist.clients.interface import RetrievalInterface
    from shortlist.clients.sharded.blocking import ShardedClient

__all__ = [
    "add_client_arguments",
    "add_connection_arguments",
    "add_servable_arguments",
    "named_servable",
    "open_client",
    "open_sharded",
    "security",
]


def add_connection_arguments(
    parser: argparse.ArgumentParser, address: str
) -> "argparse._ArgumentGroup":  # `argparse` does not export the class
    """Add the servers' addresses, and what `security` reads: TLS, headers and proxies.

    Args:
        parser: Parser of the verb.
        address: Help text of `--address`.
    """
    group = parser.add_argument_group("connection")
    group.add_argument("--address", action="append", metavar="HOST:PORT", help=address)
    group.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="HTTP header or gRPC metadata to send, such as authorization='Bearer ...'",
    )
    group.add_argument("--tls", action="store_true", help="use TLS with the system's certificates")
    group.add_argument("--ca", metavar="FILE", help="certificates to trust (PEM); implies --tls")
    group.add_argument(
        "--certificate", metavar="FILE", help="client certificate for mutual TLS (PEM)"
    )
    group.add_argument("--private-key", metavar="FILE", help="private key for --certificate")
    group.add_argument(
        "--trust-env",
        action="store_true",
        help="use the proxies of the environment (http_proxy, no_proxy), for REST also its "
        "certificates and .netrc (default: none of them)",
    )
    return group


def security(args: argparse.Namespace) -> Security:
    """Return the TLS settings, headers and use of proxies of the options.

    Raises:
        ShortlistError: A header is not NAME=VALUE.
        ValueError: A file is missing, or a certificate has no key.
    """
    tls: Tls | bool = args.tls
    if args.ca or args.certificate or args.private_key:
        tls = Tls(ca=args.ca, certificate=args.certificate, private_key=args.private_key)
    headers = dict(name_value_pairs(args.header, "--header", secret=True))
    return Security(tls=tls, headers=headers or None, trust_env=args.trust_env)


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_client` reads."""
    group = add_connection_arguments(
        parser,
        "server address; repeatable (default: "
        f"{contract.DEFAULT_REST_ADDRESS} for rest, "
        f":{contract.DEFAULT_GRPC_PORT} for grpc)",
    )
    group.add_argument(
        "--transport",
        choices=("rest", "grpc"),
        default="rest",  # of every verb
        help="API to use (default: %(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=contract.DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="deadline of the whole call (default: %(default)s)",
    )


def open_client(
    args: argparse.Namespace, interface: "RetrievalInterface | None" = None
) -> "RetrievalClient":
    """Return the client that the options describe."""
    options: dict[str, Any] = {
        "timeout": args.timeout,
        "interface": interface,
        **security(args)._asdict(),
    }
    if args.address:
        options["address"] = args.address
    if args.transport == "grpc":
        # Its errors say the same; gRPC reads this when it is imported.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from shortlist.clients.grpc import GrpcClient

        return GrpcClient(**options)
    from shortlist.clients.rest import RestClient

    return RestClient(**options)


def open_sharded(args: argparse.Namespace) -> "ShardedClient":
    """Return the client of the shards that the options describe."""
    if args.transport == "grpc":
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as in `open_client`
    from shortlist.clients.sharded.blocking import ShardedClient

    usual = {"rest": contract.DEFAULT_REST_ADDRESS, "grpc": contract.DEFAULT_GRPC_ADDRESS}
    return ShardedClient.from_addresses(
        args.address or [usual[args.transport]],
        shards=args.shards,
        transport=args.transport,
        timeout=args.timeout,
        partial="allow" if args.partial else "refuse",
        **security(args)._asdict(),
    )


def add_servable_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a servable and its version; `named_servable` reads the name."""
    group = parser.add_argument_group("servable")
    group.add_argument(
        "--model",
        default=contract.DEFAULT_MODEL,
        help="model name given to `shortlist export` (default: %(default)s)",
    )
    group.add_argument("--index", choices=contract.INDEXES, help="index of the model")
    group.add_argument(
        "--servable", metavar="NAME", help="full name, instead of --model and --index"
    )
    version = group.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, help="version number (default: the newest)")
    version.add_argument("--label", help="version label, such as stable")


def named_servable(args: argparse.Namespace) -> str:
    """Return the name of the servable that the options choose."""
    if args.servable:
        return str(args.servable)
    return contract.servable_name(args.model, args.index or contract.DEFAULT_INDEX)
