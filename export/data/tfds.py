"""Reads MovieLens through TensorFlow Datasets: its folder, its download, its checksum.

What TensorFlow Datasets has prepared is read as it is. Otherwise its download manager
fetches, verifies and unpacks the release, which is then read directly: preparing takes
TensorFlow Datasets 70 s for 100,000 ratings, reading the release itself takes 0.2 s.
"""

import contextlib
import importlib.util
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import requests

from shortlist.export.data._assemble import Interactions, assemble, ids_of
from shortlist.export.data._delimited import one_line
from shortlist.export.data.config import MOVIELENS, CandidateId
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.errors import DataError
from shortlist.export.data.movielens import movie_catalogue, read_release

__all__ = ["availability", "read_tfds"]

log = logging.getLogger(__name__)

URL = "https://files.grouplens.org/datasets/movielens/{archive}"
ROWS_PER_BATCH = 65_536
_PARTS = ("ratings", "movies")


def availability(name: str, data_dir: str | None = None, *, timeout: float = 10.0) -> str | None:
    """Why a data set cannot be had, or None when it is there or can be downloaded.

    Looks for what TensorFlow Datasets has prepared or downloaded, then for an archive in
    `downloads/manual`, then asks the download server; does not import TensorFlow.

    Args:
        name: One of `MOVIELENS`.
        data_dir: TensorFlow Datasets' folder; None means its default.
        timeout: Seconds, in all.

    Raises:
        ValueError: `name` is not one of `MOVIELENS`.
    """
    folder, archive = _data_dir(data_dir), _archive(name)
    if _prepared(folder, name) or (folder / "downloads" / "manual" / archive).exists():
        return None
    url = URL.format(archive=archive)
    if _downloaded(folder, url):
        return None
    # Name resolution knows no timeout, so the request is left behind when time is up.
    answers: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=lambda: answers.put(_ask(url, timeout)), daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return f"no answer from {url} within {timeout:g} s"


def read_tfds(
    name: str, *, data_dir: str | None, candidate_id: CandidateId, strip_year: bool
) -> Dataset:
    """A MovieLens data set by its name in TensorFlow Datasets.

    Args:
        name: One of `MOVIELENS`.
        data_dir: TensorFlow Datasets' folder; None means its default.
        candidate_id: Whether the title or the movie id identifies a candidate.
        strip_year: Whether to take the year off the titles.

    Raises:
        DataError: It is neither there nor can be downloaded, or fails its checksum.
    """
    folder = _data_dir(data_dir)
    if _prepared(folder, name):
        return _read_prepared(name, folder, candidate_id=candidate_id, strip_year=strip_year)
    if reason := availability(name, data_dir):
        archive = _archive(name)
        raise DataError(
            f"{name} is not in {folder} and cannot be downloaded ({reason}); put {archive} into "
            f"{folder / 'downloads' / 'manual'}, give a folder with the release, or use sample"
        )
    release = _download(name, folder)
    return read_release(release, name=name, candidate_id=candidate_id, strip_year=strip_year)


def _data_dir(data_dir: str | None) -> Path:
    # TensorFlow Datasets' own default and variable, without importing it.
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


def _archive(name: str) -> str:
    if name not in MOVIELENS:
        raise ValueError(f"no data set {name!r}; known are {', '.join(MOVIELENS)}")
    return f"ml-{name.removeprefix('movielens/')}.zip"


def _downloaded(folder: Path, url: str) -> bool:
    """Whether TensorFlow Datasets has this file; beside each it notes the URL."""
    notes = (folder / "downloads").rglob("*.INFO")
    return any(url in note.read_text() and note.with_suffix("").exists() for note in notes)


def _prepared(folder: Path, name: str) -> bool:
    return all(any(folder.glob(f"{name}-{part}/*/dataset_info.json")) for part in _PARTS)


def _ask(url: str, timeout: float) -> str | None:
    try:
        # Redirects are followed, as the download does.
        with requests.get(url, stream=True, timeout=timeout) as response:
            if response.ok:
                return None
            return f"{url} answers {response.status_code} {response.reason}".strip()
    except requests.RequestException as exc:
        log.debug("cannot reach %s", url, exc_info=exc)
        kind = "timeout" if isinstance(exc, requests.Timeout) else "no connection"
        return f"{kind} to {url}"


def _download(name: str, folder: Path) -> Path:
    """Folder of the unpacked release, downloaded if need be, its checksum verified."""
    downloads, archive = folder / "downloads", _archive(name)
    with _tfds() as tfds:
        try:
            manager = tfds.download.DownloadManager(
                download_dir=downloads,
                manual_dir=downloads / "manual",
                dataset_name="movielens",
                # Without this, a URL that TensorFlow Datasets does not know is accepted.
                force_checksums_validation=True,
            )
            unpacked = Path(manager.download_and_extract(URL.format(archive=archive)))
        except tfds.download.DownloadError as exc:
            raise DataError(
                f"{name} cannot be downloaded ({one_line(exc)}); try again, or put {archive} "
                f"into {downloads / 'manual'}"
            ) from exc
        except Exception as exc:
            # A wrong checksum and a damaged archive have classes that are not public.
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
    users, user_codes = ids_of(columns["user_id"])
    keys, key_codes = ids_of(columns["movie_id"])
    interactions = Interactions(
        users=users,
        user_codes=user_codes,
        keys=keys,
        key_codes=key_codes,
        ratings=columns["user_rating"].to_numpy().astype(np.float32),
        timestamps=columns["timestamp"].to_numpy().astype(np.int64),
        where=lambda row: f"{name}-ratings in {folder}, example {row + 1}",
    )
    return assemble(name, interactions, catalogue)


def _prepared_ratings(tfds: Any, builder: Any) -> dict[str, pa.ChunkedArray]:
    """The four columns of the ratings; ids as dictionaries."""
    names = ("user_id", "movie_id", "user_rating", "timestamp")
    examples = builder.as_dataset(
        split="train",
        batch_size=ROWS_PER_BATCH,
        # Titles and genres of 25 million rows would be decoded for nothing.
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
    """TensorFlow Datasets, which logs to stderr alone."""
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
