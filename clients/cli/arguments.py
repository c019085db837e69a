"""Command-line options that every verb shares which talks to a server."""

import argparse
from collections.abc import Sequence

from shortlist.clients.connection import Security, Tls
from shortlist.clients.errors import ShortlistError

__all__ = ["add_security_arguments", "name_value_pairs", "security"]


# `argparse` does not export the class of its groups.
def add_security_arguments(group: "argparse._ArgumentGroup") -> None:
    """Adds TLS and headers; `security` reads them back."""
    group.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="header or metadata to send along, such as authorization='Bearer ...'",
    )
    group.add_argument("--tls", action="store_true", help="use TLS with the usual certificates")
    group.add_argument("--ca", metavar="FILE", help="certificates to trust (PEM); implies --tls")
    group.add_argument("--certificate", metavar="FILE", help="own certificate for mutual TLS")
    group.add_argument("--private-key", metavar="FILE", help="its key")


def security(args: argparse.Namespace) -> Security:
    """What the options say.

    Raises:
        ShortlistError: A header is no NAME=VALUE.
        ValueError: A file is missing, or a certificate has no key.
    """
    tls: Tls | bool = args.tls
    if args.ca or args.certificate or args.private_key:
        tls = Tls(ca=args.ca, certificate=args.certificate, private_key=args.private_key)
    return Security(tls=tls, headers=dict(name_value_pairs(args.header, "--header")) or None)


def name_value_pairs(given: Sequence[str], option: str) -> list[tuple[str, str]]:
    """`NAME=VALUE` texts, divided.

    Raises:
        ShortlistError: One has no name or no equals sign.
    """
    found = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ShortlistError(f"{option} takes NAME=VALUE, got {text!r}")
        found.append((name, value))
    return found
