"""Parsers of `shortlist index` and `shortlist vectors`; imports nothing heavy."""

from pathlib import Path

from shortlist.clients.cli.parser import Parsers, add_parser
from shortlist.clients.contract import CANDIDATE_ID, USER_ID
from shortlist.export.cli.options import (
    add_gate_arguments,
    add_model_arguments,
    add_repository,
)
from shortlist.export.config import SIMILARITIES, OwnConfig

__all__ = ["add_own"]

_CLI = "shortlist.export.cli"


def add_own(verbs: Parsers) -> None:
    """Add the verbs for towers and vectors that were trained elsewhere."""
    _add_index(verbs)
    _add_vectors(verbs)


def _add_index(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "index",
        "Publish towers or vectors that were trained elsewhere.",
        details="Publishes one servable per index, with the signatures, filters, gates and report "
        "of an export. Files are Parquet, CSV or NPZ.",
        example="shortlist index --query-tower users.parquet --candidates candidates.parquet "
        "--index ivf --repository models",
        run=f"{_CLI}.index:index",
    )
    group = parser.add_argument_group("towers")
    group.add_argument(
        "--query-tower",
        required=True,
        metavar="PATH",
        help="folder of a SavedModel that returns one vector per row, or a file with a vector for "
        "each user id",
    )
    group.add_argument(
        "--candidates",
        required=True,
        type=Path,
        metavar="FILE",
        help="file of candidate ids and vectors; its other columns become attributes for filters",
    )
    group.add_argument(
        "--candidate-tower",
        metavar="DIR",
        help="folder of a SavedModel that computes the vectors; --candidates then has its inputs",
    )
    group.add_argument(
        "--similarity",
        choices=SIMILARITIES,
        help="similarity of a query and a candidate; `l2` scores the negative squared distance "
        f"(default: {OwnConfig.similarity})",
    )
    group.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help="rows of the query tower's inputs, for recall and known answers, or a request log; "
        "some hundred are enough (default: drawn from a file of vectors, or from --interactions)",
    )
    group.add_argument(
        "--interactions",
        type=Path,
        metavar="FILE",
        help="rows of the query tower's inputs with a candidate id, to measure hit rates on",
    )
    for option, text in (
        ("--signature", "signature of the query tower, if it has several"),
        ("--output", "output of this signature with the vectors, if it has several"),
        ("--candidate-signature", "signature of the candidate tower, if it has several"),
    ):
        group.add_argument(option, metavar="NAME", help=text)
    for option, default, text in (
        ("--candidate-column", CANDIDATE_ID, "candidate ids"),
        ("--user-column", USER_ID, "user ids in a file of vectors"),
        ("--embedding-column", "embedding", "vectors, as lists of numbers"),
    ):
        group.add_argument(
            option, metavar="COLUMN", default=default, help=f"column of {text} (default: {default})"
        )
    group.add_argument(
        "--title-column",
        metavar="COLUMN",
        help="column of names for the report (default: title, if present)",
    )
    group.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help=f"random seed of the queries that are drawn (default: {OwnConfig.seed})",
    )
    add_model_arguments(parser)
    add_gate_arguments(parser)


def _add_vectors(verbs: Parsers) -> None:
    parser = add_parser(
        verbs,
        "vectors",
        "Write the vectors of a published version to files.",
        details="For vector databases and notebooks; `shortlist index` reads them again. Vectors "
        "come from the version alone, whatever its index.",
        example="shortlist vectors retrieval_ivf/1 --output candidates.parquet",
        run=f"{_CLI}.vectors:vectors",
    )
    parser.add_argument(
        "version",
        metavar="VERSION",
        help="<repository>/<model>/<version>, or <model>/<version> in --repository; a label such "
        "as stable stands for its version",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="Parquet or NPZ file of candidate ids, embeddings and attributes",
    )
    parser.add_argument(
        "--users",
        type=Path,
        metavar="FILE",
        help="Parquet or NPZ file of user ids and their query embeddings",
    )
    add_repository(parser)
