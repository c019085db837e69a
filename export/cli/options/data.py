"""Options of data, and how they are read; imports nothing heavy."""

import argparse
from collections.abc import Mapping
from typing import Any, get_args

from shortlist.export.data.config import (
    MOVIELENS,
    SAMPLE,
    SKIPPED_SHARE,
    DataConfig,
    UnknownCandidates,
)

__all__ = ["add_data_arguments", "add_reading_arguments", "data_config"]


def add_data_arguments(
    parser: argparse.ArgumentParser, *, default: str = DataConfig.source
) -> None:
    """Add the options that `data_config` reads.

    Omitted options are `None`, so that a configuration file can supply them.

    Args:
        parser: Parser of the verb.
        default: Source that the help names as the default.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        dest="data_source",
        action="append",
        metavar="SOURCE",
        help=f"{SAMPLE} (synthetic), {', '.join(MOVIELENS)} (from TensorFlow Datasets), a folder "
        "with a MovieLens release, or interactions: a CSV, JSON, Parquet or Arrow file, a folder "
        "or pattern of such files, or an address of a store or database; repeatable "
        f"(default: {default})",
    )
    add_reading_arguments(group)
    group.add_argument(
        "--data-dir",
        dest="data_data_dir",
        metavar="DIR",
        help="folder of TensorFlow Datasets (default: ~/tensorflow_datasets)",
    )
    usual = " or a usual name"
    _add_columns(
        group,
        {
            "rating_column": f"ratings (default: rating{usual}, if present and without gaps)",
            "item_id_column": "candidate ids in --candidates (default: the same, or a usual name)",
            "title_column": f"titles in --candidates (default: title{usual}, if present)",
        },
    )
    group.add_argument(
        "--candidates",
        dest="data_candidates_file",
        metavar="FILE",
        help="file of the catalogue, one row per candidate; further columns "
        "become attributes (default: candidates of the interactions)",
    )
    group.add_argument(
        "--users",
        dest="data_users_file",
        metavar="FILE",
        help="file with attributes of users, one row per user, such as age and "
        "country; requests can then give them as features (default: those of the data itself)",
    )
    group.add_argument(
        "--context-column",
        dest="data_context_columns",
        action="append",
        metavar="COLUMN",
        help="column of the interactions with a circumstance, such as the device, that requests "
        "can give as a feature; repeatable. Hour and weekday (UTC) are taken from the times",
    )
    group.add_argument(
        "--text-column",
        dest="data_text_columns",
        action="append",
        metavar="COLUMN",
        help="column of --candidates with a text, such as a description, whose words become "
        "features of the candidates; `title` for the titles of any source; repeatable",
    )
    group.add_argument(
        "--unknown-candidates",
        dest="data_unknown_candidates",
        choices=get_args(UnknownCandidates),
        help="treatment of interactions whose candidate is not in --candidates (default: "
        f"{DataConfig.unknown_candidates})",
    )
    group.add_argument(
        "--attribute-type",
        dest="data_attribute_types",
        action="append",
        metavar="NAME=TYPE",
        help="type of a column in --candidates or --users, text or number; repeatable (default: "
        "numbers if all values are)",
    )
    for name, text in (
        ("sample_seed", "random seed"),
        ("sample_users", "number of users"),
        ("sample_candidates", "number of candidates"),
        ("sample_interactions", "approximate number of interactions"),
    ):
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"data_{name}",
            type=int,
            metavar="N",
            help=f"{text} of `sample` (default: {getattr(DataConfig, name)})",
        )


def add_reading_arguments(group: "argparse._ActionsContainer") -> None:
    """Add the options about columns and forms of files of interactions."""
    group.add_argument(
        "--candidate-id",
        dest="data_candidate_id",
        choices=("title", "movie_id"),
        help="candidate id of a MovieLens movie (default: title)",
    )
    group.add_argument(
        "--strip-year",
        dest="data_strip_year",
        action="store_true",
        default=None,
        help="remove the year from MovieLens titles; movies that then share a title become one",
    )
    usual = " or a usual name"
    _add_columns(
        group,
        {
            "user_column": f"user ids, in --users, too (default: {DataConfig.user_column}{usual})",
            "candidate_column": f"candidate ids (default: {DataConfig.candidate_column}{usual})",
            "timestamp_column": f"times (default: timestamp{usual}, if present)",
            "event_column": "kinds of events, such as view and purchase, for --event-weights",
            "weight_column": "weights, such as quantities; rows of 0 or less are left out",
        },
    )
    group.add_argument(
        "--event-weights",
        dest="data_event_weights",
        type=lambda text: [pair.strip() for pair in text.split(",")],
        metavar="NAME=WEIGHT,...",
        help="weight of each kind of event, such as view=1,cart=3,purchase=10; 0 leaves events "
        "out. Weights count in training, histories and metrics",
    )
    group.add_argument(
        "--timestamp-format",
        dest="data_timestamp_format",
        metavar="FORM",
        help="form of the times, such as '%%m/%%d/%%Y %%H:%%M' (default: seconds, milliseconds "
        "or microseconds since 1970, or as 2024-05-31 18:00:00)",
    )
    group.add_argument(
        "--delimiter",
        dest="data_delimiter",
        metavar="TEXT",
        help="delimiter of text files (default: found out)",
    )
    group.add_argument(
        "--encoding",
        dest="data_encoding",
        metavar="NAME",
        help="encoding of text files, such as windows-1252 (default: found out)",
    )
    group.add_argument(
        "--query",
        dest="data_query",
        metavar="SQL",
        help="query that returns the interactions, for --data with the address of a database, such "
        "as sqlite:///shop.db",
    )
    group.add_argument(
        "--skip-bad-rows",
        dest="data_skip_bad_rows",
        nargs="?",
        type=float,
        const=SKIPPED_SHARE,
        metavar="SHARE",
        help="leave out interactions with missing or faulty values if they are at most this share "
        f"of all (default without SHARE: {SKIPPED_SHARE:g})",
    )


def _add_columns(group: "argparse._ActionsContainer", columns: Mapping[str, str]) -> None:
    for name, text in columns.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"data_{name}",
            metavar="COLUMN",
            help=f"column of {text}",
        )


def data_config(args: argparse.Namespace, **defaults: Any) -> DataConfig:
    """Return the configuration that the options describe.

    Args:
        args: Parsed with `add_data_arguments`.
        **defaults: Attributes of `DataConfig` for options not given.

    Raises:
        ValueError: A value is out of range, or a default is unknown.
    """
    chosen = {
        name.removeprefix("data_"): tuple(value) if isinstance(value, list) else value
        for name, value in vars(args).items()
        if name.startswith("data_") and value is not None
    }
    if "source" in chosen:
        chosen["source"], *more = chosen["source"]
        chosen["more_sources"] = tuple(more)
    return DataConfig(**{"source": DataConfig.source, **defaults, **chosen})
