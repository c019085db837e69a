"""Reads MovieLens with the folder, download and checksum of TensorFlow Datasets.

Prepared data is read as it is. Otherwise the download manager of TensorFlow Datasets fetches,
verifies and unpacks the release, which is then read directly: preparing 100,000 ratings takes
TensorFlow Datasets 70 s, reading the release takes 0.2 s.
"""

import contextlib
import importlib.util
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shortlist.export.data.config import MOVIELENS, CandidateId, DataError
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.reading.locations import one_line
from shortlist.export.data.sources._assemble import Interactions, assemble, ids_of
from shortlist.export.data.sources.features import UserTable, with_users
from shortlist.export.data.sources.movielens import movie_catalogue, read_release, user_table

__all__ = ["availability", "read_tfds"]

log = logging.getLogger(__name__)

URL = "https://files.grouplens.org/datasets/movielens/{archive}"
ROWS_PER_BATCH = 65_536
_PARTS = ("ratings", "movies")
_COLUMNS = ("user_id", "movie_id", "user_rating", "timestamp")
_USER_COLUMNS = (
    *("user_gender", "bucketized_user_age", "raw_user_age", "user_occupation_text"),
    "user_zip_code",
)


def availability(
    name: str, data_dir: str | None = None, *, timeout: float = 10.0, url: str = URL
) -> str | None:
    """Return why a data set is not available; None if it is present or can be downloaded.

    Looks for prepared or downloaded data of TensorFlow Datasets, then for an archive in
    `downloads/manual`, then asks the download server. Does not import TensorFlow.

    Args:
        name: One of `MOVIELENS`.
        data_dir: Folder of TensorFlow Datasets; None for its default.
        timeout: Total time in seconds.
        url: Address of the download, with a placeholder for the archive.

    Raises:
        ValueError: `name` is not one of `MOVIELENS`.
    """
    folder, archive = _data_dir(data_dir), _archive(name)
    if _prepared(folder, name) or (folder / "downloads" / "manual" / archive).exists():
        return None
    url = url.format(archive=archive)
    if _downloaded(folder, url):
        return None
    # Name resolution has no timeout, so the request may go on in its thread.
    answers: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=lambda: answers.put(_ask(url, timeout)), daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return f"no answer from {url} within {timeout:g} s"


def read_tfds(
    name: str,
    *,
    data_dir: str | None,
    candidate_id: CandidateId,
    strip_year: bool,
    url: str = URL,
) -> Dataset:
    """Read a MovieLens data set by its name in TensorFlow Datasets.

    Args:
        name: One of `MOVIELENS`.
        data_dir: Folder of TensorFlow Datasets; None for its default.
        candidate_id: Candidate id of a movie: its title or its movie id.
        strip_year: Remove the year from titles.
        url: Address of the download, with a placeholder for the archive.

    Raises:
        DataError: The data is missing and cannot be downloaded, or fails its checksum.
    """
    folder = _data_dir(data_dir)
    if _prepared(folder, name):
        return _read_prepared(name, folder, candidate_id=candidate_id, strip_year=strip_year)
    if reason := availability(name, data_dir, url=url):
        archive = _archive(name)
        raise DataError(
            f"{name} is not in {folder} and cannot be downloaded ({reason}); put {archive} into "
            f"{folder / 'downloads' / 'manual'}, give a folder with the release, or use sample"
        )
    release = _download(name, folder)
    return read_release(release, name=name, candidate_id=candidate_id, strip_year=strip_year)


def _data_dir(data_dir: str | None) -> Path:
    # Default and environment variable of TensorFlow Datasets, without importing it.
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


def _archive(name: str) -> str:
    if name not in MOVIELENS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(MOVIELENS)}")
    return f"ml-{name.removeprefix('movielens/')}.zip"


def _downloaded(folder: Path, url: str) -> bool:
    """Return whether TensorFlow Datasets has a file; it notes the URL next to each."""
    notes = (folder / "downloads").rglob("*.INFO")
    return any(url in note.read_text() and note.with_suffix("").exists() for note in notes)


def _prepared(folder: Path, name: str) -> bool:
    return all(any(folder.glob(f"{name}-{part}/*/dataset_info.json")) for part in _PARTS)


def _ask(url: str, timeout: float) -> str | None:
    import requests  # a quarter of the time in which a small file is read

    try:
        # Follows redirects, as the download does.
        with requests.get(url, stream=True, timeout=timeout) as response:
            if response.ok:
                return None
            return f"{url} returned {response.status_code} {response.reason}".strip()
    except requests.RequestException as exc:
        log.debug("cannot reach %s", url, exc_info=exc)
        kind = "timeout" if isinstance(exc, requests.Timeout) else "no connection"
        return f"{kind} to {url}"


def _download(name: str, folder: Path) -> Path:
    """Folder of the unpacked release, downloaded if necessary, with a verified checksum."""
    downloads, archive = folder / "downloads", _archive(name)
    with _tfds() as tfds:
        try:
            manager = tfds.download.DownloadManager(
                download_dir=downloads,
                manual_dir=downloads / "manual",
                dataset_name="movielens",
                # Otherwise TensorFlow Datasets accepts unknown URLs.
                force_checksums_validation=True,
            )
            unpacked = Path(manager.download_and_extract(URL.format(archive=archive)))
        except tfds.download.DownloadError as exc:
            raise DataError(
                f"{name} cannot be downloaded ({one_line(exc)}); try again, or put {archive} "
                f"into {downloads / 'manual'}"
            ) from exc
        except Exception as exc:
            # The errors for a wrong checksum and a damaged archive are not public.
            raise DataError(
                f"{name} cannot be read from {downloads} ({one_line(exc)}); "
                f"remove the damaged {archive} there and try again"
            ) from exc
    return unpacked / archive.removesuffix(".zip")


def _read_prepared(
    name: str, folder: Path, *, candidate_id: CandidateId, strip_year: bool
) -> Dataset:
    with _tfds() as tfds:
        movies = tfds.builder(f"{name}-movies", data_dir=folder)
        genre_of = movies.info.features["movie_genres"].feature.int2str
        rows = list(tfds.as_numpy(movies.as_dataset(split="train")))
        columns = _prepared_ratings(tfds, tfds.builder(f"{name}-ratings", data_dir=folder))
    catalogue = movie_catalogue(
        [row["movie_id"].decode() for row in rows],
        [row["movie_title"].decode() for row in rows],
        [tuple(genre_of(int(genre)) for genre in row["movie_genres"]) for row in rows],
        candidate_id=candidate_id,
        strip_year=strip_year,
        where=f"{name}-movies",
    )
    interactions = Interactions.of_columns(
        columns["user_id"],
        columns["movie_id"],
        ratings=columns["user_rating"].to_numpy().astype(np.float32),
        timestamps=columns["timestamp"].to_numpy().astype(np.int64),
        where=lambda row: f"{name}-ratings in {folder}, example {row + 1}",
    )
    dataset = assemble(name, interactions, catalogue)
    users = _prepared_users(columns, f"{name}-ratings in {folder}")
    return dataset if users is None else with_users(dataset, users)


def _prepared_users(columns: Mapping[str, pa.ChunkedArray], where: str) -> UserTable | None:
    """Users, whose attributes are in each of their ratings; None if there are none."""
    if "user_gender" not in columns:
        return None
    ids, codes = ids_of(columns["user_id"])
    _, first = np.unique(codes, return_index=True)

    def of_users(name: str) -> list[Any]:
        rows: list[Any] = columns[name].unify_dictionaries().take(first).to_pylist()
        return rows

    return user_table(
        ids,
        ages=of_users("raw_user_age" if "raw_user_age" in columns else "bucketized_user_age"),
        genders=["M" if male else "F" for male in of_users("user_gender")],
        occupations=of_users("user_occupation_text"),
        zips=of_users("user_zip_code"),
        where=where,
    )


def _prepared_ratings(tfds: Any, builder: Any) -> dict[str, pa.ChunkedArray]:
    """Columns of the ratings; texts as dictionaries."""
    names = [*_COLUMNS, *(name for name in _USER_COLUMNS if name in builder.info.features)]
    examples = builder.as_dataset(
        split="train",
        batch_size=ROWS_PER_BATCH,
        # Avoids decoding titles and genres of 25 million rows.
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
    )
    chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
    for batch in tfds.as_numpy(examples):
        for name in names:
            values = batch[name]
            if values.dtype == object:
                chunks[name].append(
                    pa.array(values, pa.binary()).cast(pa.string()).dictionary_encode()
                )
            else:
                chunks[name].append(pa.array(values))
    return {name: pa.chunked_array(parts) for name, parts in chunks.items()}


@contextlib.contextmanager
def _tfds() -> Iterator[Any]:
    """Import TensorFlow Datasets and let it log only to stderr."""
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise DataError(
            "TensorFlow Datasets is not installed; install shortlist[export], "
            "or give a folder with the release"
        )
    import tensorflow_datasets

    import shortlist.export._tf  # noqa: F401  (its switches must precede the first use of TensorFlow)

    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):
        yield tensorflow_datasets
