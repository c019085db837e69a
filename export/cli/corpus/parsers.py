"""Parsers of `shortlist update` and `shortlist remove`; imports nothing heavy."""

from pathlib import Path

from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.export.cli.options import add_gate_arguments
from shortlist.serving.cli.commands import add_fleet_arguments, add_rollout_options

__all__ = ["add_corpus"]

_CLI = "shortlist.export.cli.corpus"


def add_corpus(verbs: Parsers) -> None:
    """Add the verbs that change the corpus of a model without training."""
    _add_update(verbs)
    _add_remove(verbs)


def _add_update(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "update",
        "Publish a version with other candidates or events, without training.",
        details="The new version has the towers of an earlier one, from which all that is needed "
        "is read. Files are CSV, TSV, JSON lines, Parquet or Arrow; ids to remove or forget may "
        "also be one per line.",
        example="shortlist update models/retrieval_ivf --candidates new.csv --remove withdrawn.txt",
        run=f"{_CLI}.update:update",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="base path of a servable, <repository>/<model>; all servables of its export are "
        "updated",
    )
    parser.add_argument(
        "--from",
        dest="parent",
        metavar="VERSION",
        help="version to start from: a number or a label (default: stable, or the newest if no "
        "version has this label)",
    )
    group = parser.add_argument_group("changes")
    group.add_argument(
        "--candidates",
        type=Path,
        metavar="FILE",
        help="new candidates with their attributes, and known ones whose attributes changed; a "
        "column `embedding` gives a vector, `like` the id of a similar candidate",
    )
    for option, text in (
        ("--attributes", "attributes of known candidates, such as prices; others stay"),
        ("--remove", "ids of candidates to remove"),
        ("--forget-users", "ids of users to forget: their events, vectors and recorded queries"),
    ):
        group.add_argument(option, type=Path, metavar="FILE", help=text)
    group.add_argument(
        "--interactions",
        action="append",
        default=[],
        metavar="FILE",
        help="interactions since the version; repeatable. Those of its users join their histories, "
        "and new candidates get embeddings from those who took them",
    )
    group.add_argument(
        "--allow-again",
        action="store_true",
        help="let candidates back in that were removed before",
    )
    add_gate_arguments(parser)
    parser.set_defaults(target=None)  # that of the version


def _add_remove(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "remove",
        "Withdraw candidates: publish a version without them, and roll it out with --now.",
        details="An update that removes candidates, with the quick gates. Their ids are kept in "
        "the repository, so that no later export or update of older data brings them back.",
        example="shortlist remove 4711 4712 --repository models --now",
        run=f"{_CLI}.remove:remove",
    )
    parser.add_argument("ids", nargs="+", metavar="ID", help="id of a candidate")
    parser.add_argument(
        "--now",
        action="store_true",
        help="promote the version on all servers, unload the one before, and ask each server "
        "until none knows the candidates",
    )
    parser.add_argument(
        "--from",
        dest="parent",
        metavar="VERSION",
        help="version to start from: a number or a label (default: stable, or the newest)",
    )
    add_fleet_arguments(parser)
    add_rollout_options(parser)
    add_gate_arguments(parser)
    parser.set_defaults(target=None)
