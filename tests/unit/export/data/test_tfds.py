"""MovieLens through TensorFlow Datasets, with and without a network."""

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from shortlist.export.data import DataConfig, DataError, Dataset, load
from shortlist.export.data.sources.tfds import availability, read_tfds

NAME = "movielens/latest-small"


class _Handler(BaseHTTPRequestHandler):
    """Answers /ok/… and /missing/… at once, and /slow/… when the test is over."""

    over = threading.Event()

    def do_GET(self) -> None:
        if self.path.startswith("/slow/"):
            self.over.wait()
        self.send_response(200 if self.path.startswith("/ok/") else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    _Handler.over.clear()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    _Handler.over.set()
    httpd.shutdown()
    httpd.server_close()
    thread.join(timeout=5)


def test_downloadable_data_is_available(server: str, tmp_path: Path) -> None:
    assert availability(NAME, str(tmp_path), url=server + "/ok/{archive}") is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/missing/", "returned 404"), ("/slow/", r"timeout to|no answer from .* within 0.5 s")],
)
def test_unavailable_data_gets_a_reason_in_time(
    path: str, reason: str, server: str, tmp_path: Path
) -> None:
    answer = availability(NAME, str(tmp_path), timeout=0.5, url=server + path + "{archive}")
    assert answer is not None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(answer)


def test_unreachable_server_is_reported_with_remedies(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"latest-small is not in .* \(no connection to .*put ml-latest-small.zip into "
        r".*manual, give a folder with the release, or use sample",
    ):
        read_tfds(
            NAME,
            data_dir=str(tmp_path),
            candidate_id="title",
            strip_year=False,
            url="http://127.0.0.1:9/{archive}",  # refused at once, without any network
        )


def test_archive_put_in_by_hand_is_available(tmp_path: Path) -> None:
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    manual.joinpath("ml-latest-small.zip").write_bytes(b"PK")
    assert availability(NAME, str(tmp_path)) is None


def test_download_of_tensorflow_datasets_is_found(tmp_path: Path) -> None:
    stored = tmp_path / "downloads" / "movielens" / "files.grouple.org_ml-100kXYZ.zip"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"PK")
    stored.with_name(stored.name + ".INFO").write_text(
        '{"urls": ["https://files.grouplens.org/datasets/movielens/ml-100k.zip"]}'
    )
    assert availability("movielens/100k", str(tmp_path)) is None


def test_folder_of_tensorflow_datasets_comes_from_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("ratings", "movies"):
        folder = tmp_path / f"{NAME}-{part}" / "0.1.1"
        folder.mkdir(parents=True)
        folder.joinpath("dataset_info.json").write_text("{}")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert availability(NAME) is None


def test_unknown_name_is_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown data set 'movielens/2m'; choose from movielens/1"
    ):
        availability("movielens/2m")


def assert_same(dataset: Dataset, other: Dataset) -> None:
    assert dataset.user_ids == other.user_ids
    assert dataset.candidate_ids == other.candidate_ids
    assert dataset.titles == other.titles
    for name in ("user_positions", "candidate_positions", "ratings", "timestamps"):
        np.testing.assert_array_equal(getattr(dataset, name), getattr(other, name))
    genres, other_genres = dataset.attributes["genres"], other.attributes["genres"]
    assert genres.values is not None
    assert other_genres.values is not None
    assert genres.values == other_genres.values
    years, other_years = dataset.attributes["year"], other.attributes["year"]
    assert years.numbers is not None
    assert other_years.numbers is not None
    np.testing.assert_array_equal(years.numbers, other_years.numbers)


@pytest.mark.slow
def test_damaged_archive_is_refused_by_its_checksum(tmp_path: Path) -> None:
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    manual.joinpath("ml-latest-small.zip").write_bytes(b"PK not what GroupLens published")
    with pytest.raises(DataError, match=r"cannot be read from .*remove the damaged ml-latest-sma"):
        load(DataConfig(source=NAME, data_dir=str(tmp_path)))


@pytest.mark.slow
def test_offline_archive_gives_the_same_as_its_folder(
    latest_small_zip: Path, latest_small: Path, tmp_path: Path
) -> None:
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    shutil.copy(latest_small_zip, manual)
    config = DataConfig(source=NAME, data_dir=str(tmp_path))
    assert_same(load(config), load(DataConfig(source=str(latest_small))))


@pytest.mark.slow
def test_prepared_data_gives_the_same_as_its_folder(
    latest_small_zip: Path, latest_small: Path, tmp_path: Path
) -> None:
    """Data prepared with `tfds.load` is read as it is; preparing takes 70 s."""
    import tensorflow_datasets

    import shortlist.export._tf  # noqa: F401  (its switches must precede the first use of TensorFlow)

    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    shutil.copy(latest_small_zip, manual)
    tensorflow_datasets.disable_progress_bar()
    for part in ("movies", "ratings"):
        tensorflow_datasets.load(f"{NAME}-{part}", split="train", data_dir=tmp_path)
    shutil.rmtree(tmp_path / "downloads")
    config = DataConfig(source=NAME, data_dir=str(tmp_path))
    assert_same(load(config), load(DataConfig(source=str(latest_small))))
