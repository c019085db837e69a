"""Options of all verbs that retrieve candidates: how many, and which not."""

import argparse
from typing import TYPE_CHECKING

from shortlist.clients import contract
from shortlist.clients.cli.parser import name_value_pairs
from shortlist.clients.errors import ShortlistError
from shortlist.clients.types import Filter

if TYPE_CHECKING:
    from shortlist.clients.local import RetrievalOptions

__all__ = ["add_retrieval_arguments", "add_tensor_arguments", "filter_options", "retrieval_options"]


def add_retrieval_arguments(parser: "argparse._ActionsContainer") -> None:
    """Add the options that `retrieval_options` reads."""
    parser.add_argument(
        "-k",
        "--k",
        type=int,
        metavar="K",
        help=f"candidates per user (default: {contract.DEFAULT_K}, or what the model answers)",
    )
    parser.add_argument(
        "--keep-history",
        action="store_true",
        help="do not omit the candidates in the history",
    )
    parser.add_argument(
        "--exclude", action="append", metavar="CANDIDATE", help="candidate id to omit; repeatable"
    )
    parser.add_argument(
        "--exclude-seen", action="store_true", help="omit candidates each user interacted with"
    )
    for name, value, condition in (
        ("any", "VALUE", "attribute has VALUE; one match is enough"),
        ("all", "VALUE", "attribute has VALUE; all must match"),
        ("min", "NUMBER", "attribute is at least NUMBER"),
        ("max", "NUMBER", "attribute is at most NUMBER"),
    ):
        parser.add_argument(
            f"--filter-{name}",
            action="append",
            default=[],
            metavar=f"ATTRIBUTE={value}",
            help=f"{condition}; repeatable",
        )


def add_tensor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the names of tensors, for models that leave them open."""
    group = parser.add_argument_group(
        "tensors", "only for a model whose signatures leave open which tensors to ask"
    )
    for name, help_text in (
        ("signature", "signature that retrieves candidates"),
        ("input", "input with user ids"),
        ("ids", "output with candidate ids"),
        ("scores", "output with scores"),
    ):
        group.add_argument(f"--{name}", metavar="NAME", help=help_text)


def retrieval_options(args: argparse.Namespace) -> "RetrievalOptions":
    """Return what the options ask for.

    Raises:
        ShortlistError: An option is not NAME=VALUE, or not a number.
    """
    from shortlist.clients.local import RetrievalOptions

    return RetrievalOptions(
        k=args.k,
        exclude=args.exclude or (),
        exclude_history=not args.keep_history,
        exclude_seen=args.exclude_seen,
        filter=_filter(args),
    )


def filter_options(args: argparse.Namespace) -> str:
    """Return the conditions as the user typed them."""
    return " ".join(
        f"--filter-{name} {text}"
        for name in ("any", "all", "min", "max")
        for text in getattr(args, f"filter_{name}")
    )


def _filter(args: argparse.Namespace) -> Filter | None:
    def pairs(name: str) -> list[tuple[str, str]]:
        return name_value_pairs(getattr(args, f"filter_{name}"), f"--filter-{name}")

    def values(name: str) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {}
        for attribute, value in pairs(name):
            values.setdefault(attribute, []).append(value)
        return values

    def bounds(name: str) -> dict[str, float]:
        bounds = {}
        for attribute, value in pairs(name):
            try:
                bounds[attribute] = float(value)
            except ValueError:
                raise ShortlistError(f"--filter-{name} takes NAME=NUMBER, got {value!r}") from None
        return bounds

    chosen = Filter(any=values("any"), all=values("all"), min=bounds("min"), max=bounds("max"))
    return chosen if chosen != Filter() else None
