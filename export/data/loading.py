"""Loads data with the reader for its kind of source."""

import dataclasses
import glob
import logging
import time
from pathlib import Path

from shortlist.export.data.config import MOVIELENS, SAMPLE, DataConfig, DataError, is_url
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.sources.features import with_times, with_users
from shortlist.export.data.sources.movielens import has_release, read_release
from shortlist.export.data.sources.sample import make_sample
from shortlist.export.data.sources.tabular import read_table, read_users
from shortlist.export.data.sources.tfds import read_tfds
from shortlist.export.data.sources.words import with_words

__all__ = ["is_named", "load"]

log = logging.getLogger(__name__)


def load(config: DataConfig) -> Dataset:
    """Load the configured data, which has at least one interaction.

    Users are in natural order (9 before 10), candidates in the order of the catalogue, and
    interactions by user and then time, so that all formats of a release give equal datasets.

    Raises:
        DataError: The data cannot be found or read, or is inconsistent.
    """
    start = time.monotonic()
    users = None if config.users_file is None else read_users(config)  # fails early
    dataset = _load(config)
    if users is not None:
        dataset = with_users(dataset, users)
    _check_types(dataset, config)
    dataset = with_words(dataset, config)
    dataset = dataclasses.replace(with_times(dataset), source=config)
    log.info(
        "read %s: %d interactions of %d users with %d candidates, %.1f s",
        dataset.name,
        dataset.num_interactions,
        len(dataset.user_ids),
        len(dataset.candidate_ids),
        time.monotonic() - start,
    )
    return dataset


def _load(config: DataConfig) -> Dataset:
    if is_named(config):
        for option, names in (
            ("--context-column", config.context_columns),
            ("--event-column", (config.event_column,)),
            ("--weight-column", (config.weight_column,)),
        ):
            if names and names[0] is not None:
                raise DataError(
                    f"{config.source} has no column {names[0]!r}; {option} needs a file of "
                    "interactions"
                )
        if config.more_sources:
            raise DataError(
                f"{config.source} cannot be read together with {config.more_sources[0]}; give "
                "--data once, or only files of interactions"
            )
    if config.source == SAMPLE:
        return make_sample(
            num_users=config.sample_users,
            num_candidates=config.sample_candidates,
            num_interactions=config.sample_interactions,
            seed=config.sample_seed,
        )
    path = Path(config.source).expanduser()
    if path.is_dir() and has_release(path):
        return read_release(path, candidate_id=config.candidate_id, strip_year=config.strip_year)
    if path.is_dir():
        return read_table(config)
    if config.source in MOVIELENS:
        return read_tfds(
            config.source,
            data_dir=config.data_dir,
            candidate_id=config.candidate_id,
            strip_year=config.strip_year,
        )
    if (
        config.query
        or is_url(config.source)
        or path.is_file()
        or path.suffix
        or glob.has_magic(config.source)
    ):
        return read_table(config)
    raise DataError(
        f"no data at {path}; give {SAMPLE}, one of {', '.join(MOVIELENS)}, "
        "a folder with a MovieLens release, or a file or folder of interactions"
    )


def _check_types(dataset: Dataset, config: DataConfig) -> None:
    known = [*dataset.attributes, *dataset.user_attributes]
    for pair in config.attribute_types:
        name = pair.rpartition("=")[0]
        if name not in known:
            raise DataError(
                f"--attribute-type {pair}: there is no attribute {name!r}, only "
                f"{', '.join(known) or 'none at all'}; correct the name"
            )


def is_named(config: DataConfig) -> bool:
    """Return whether the columns are known: of data by name, or of a MovieLens release."""
    if config.path is None:
        return not is_url(config.source)
    return config.path.is_dir() and has_release(config.path)
