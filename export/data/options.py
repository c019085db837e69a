"""The data options of the command; imports nothing heavy."""

import argparse
from typing import Any

from shortlist.export.data.config import MOVIELENS, SAMPLE, DataConfig

__all__ = ["add_data_arguments", "data_config"]


def add_data_arguments(
    parser: argparse.ArgumentParser, *, default: str = DataConfig.source
) -> None:
    """Adds the options that say what data to read; `data_config` reads them back.

    Options that were not given keep their attribute at None, so that a configuration
    file can supply them.

    Args:
        parser: Of the verb.
        default: Source that the help names as the default.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        dest="data_source",
        metavar="SOURCE",
        help=f"{SAMPLE} (made on the spot), {', '.join(MOVIELENS)} (through TensorFlow Datasets), "
        "a folder with a MovieLens release, or a CSV or Parquet file of interactions "
        f"(default: {default})",
    )
    group.add_argument(
        "--candidate-id",
        dest="data_candidate_id",
        choices=("title", "movie_id"),
        help="what identifies a movie of MovieLens (default: title)",
    )
    group.add_argument(
        "--strip-year",
        dest="data_strip_year",
        action="store_true",
        default=None,
        help="take the year off MovieLens titles; movies that then share a title become one",
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
        ("--rating-column", "rating_column", "ratings (default: rating, if there is one)"),
        ("--timestamp-column", "timestamp_column", "times (default: timestamp, if there is one)"),
        ("--title-column", "title_column", "titles in --candidates (default: title, if any)"),
    ):
        group.add_argument(option, dest=f"data_{name}", metavar="COLUMN", help=f"column of {text}")
    group.add_argument(
        "--candidates",
        dest="data_candidates_file",
        metavar="FILE",
        help="CSV or Parquet file of the catalogue, one row per candidate; its other columns "
        "become attributes (default: the candidates that have interactions)",
    )


def _add_sample_arguments(group: "argparse._ArgumentGroup") -> None:
    for option, name, text in (
        ("--sample-seed", "sample_seed", "seed"),
        ("--sample-users", "sample_users", "users"),
        ("--sample-candidates", "sample_candidates", "candidates"),
        ("--sample-interactions", "sample_interactions", "interactions, about"),
    ):
        group.add_argument(
            option,
            dest=f"data_{name}",
            type=int,
            metavar="N",
            help=f"{text} of `sample` (default: {getattr(DataConfig, name)})",
        )


def data_config(args: argparse.Namespace, **defaults: Any) -> DataConfig:
    """Configuration that the options describe.

    Args:
        args: Parsed with `add_data_arguments`.
        **defaults: Attributes of `DataConfig` that hold where no option was given.

    Raises:
        ValueError: A value is out of range; an unknown default.
    """
    given = {
        name.removeprefix("data_"): value
        for name, value in vars(args).items()
        if name.startswith("data_") and value is not None
    }
    if "source" not in given and "source" not in defaults:
        defaults = {**defaults, "source": DataConfig.source}
    return DataConfig(**{**defaults, **given})
