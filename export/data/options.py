"""Command-line options of the data source; imports nothing heavy."""

import argparse
from typing import Any

from shortlist.export.data.config import MOVIELENS, SAMPLE, DataConfig

__all__ = ["add_data_arguments", "data_config"]


def add_data_arguments(
    parser: argparse.ArgumentParser, *, default: str = DataConfig.source
) -> None:
    """Add the options for the data; `data_config` reads them.

    Options that are not used have the value None, so that a configuration file can set them.

    Args:
        parser: Parser of the verb.
        default: Default source, for the help text.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        dest="data_source",
        metavar="SOURCE",
        help=f"{SAMPLE} (synthetic data), {', '.join(MOVIELENS)} (through TensorFlow Datasets), "
        "a folder with a MovieLens release, or a CSV or Parquet file of interactions "
        f"(default: {default})",
    )
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
        help="remove the year from MovieLens titles; movies that then share a title become one "
        "candidate",
    )
    group.add_argument(
        "--data-dir",
        dest="data_data_dir",
        metavar="DIR",
        help="folder of TensorFlow Datasets (default: ~/tensorflow_datasets)",
    )
    _add_file_arguments(group)
    _add_sample_arguments(group)


def _add_file_arguments(group: "argparse._ArgumentGroup") -> None:
    for option, name, text in (
        ("--user-column", "user_column", f"user ids (default: {DataConfig.user_column})"),
        (
            "--candidate-column",
            "candidate_column",
            f"candidate ids (default: {DataConfig.candidate_column})",
        ),
        ("--rating-column", "rating_column", "ratings (default: rating, if any)"),
        ("--timestamp-column", "timestamp_column", "times (default: timestamp, if any)"),
        ("--title-column", "title_column", "titles in --candidates (default: title, if any)"),
    ):
        group.add_argument(option, dest=f"data_{name}", metavar="COLUMN", help=f"column of {text}")
    group.add_argument(
        "--candidates",
        dest="data_candidates_file",
        metavar="FILE",
        help="CSV or Parquet file of the catalogue, one row per candidate; its other columns "
        "become attributes (default: all candidates with interactions)",
    )


def _add_sample_arguments(group: "argparse._ArgumentGroup") -> None:
    for option, name, text in (
        ("--sample-seed", "sample_seed", "seed"),
        ("--sample-users", "sample_users", "users"),
        ("--sample-candidates", "sample_candidates", "candidates"),
        ("--sample-interactions", "sample_interactions", "interactions (approximate)"),
    ):
        group.add_argument(
            option,
            dest=f"data_{name}",
            type=int,
            metavar="N",
            help=f"{text} in `sample` (default: {getattr(DataConfig, name)})",
        )


def data_config(args: argparse.Namespace, **defaults: Any) -> DataConfig:
    """Return the configuration from the options.

    Args:
        args: Arguments of a parser with `add_data_arguments`.
        **defaults: Attributes of `DataConfig` for options that are not used.

    Raises:
        ValueError: A value is out of range, or a default is unknown.
    """
    options = {
        name.removeprefix("data_"): value
        for name, value in vars(args).items()
        if name.startswith("data_") and value is not None
    }
    if "source" not in options and "source" not in defaults:
        defaults = {**defaults, "source": DataConfig.source}
    return DataConfig(**{**defaults, **options})
