"""Folders with MovieLens releases: all layouts give equal data, and errors name the fault."""

import gc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.export.data import DataConfig, DataError, Dataset, load
from shortlist.export.data.sources._assemble import natural_order
from tests.unit.export.data.conftest import WriteRelease, write_1m, write_100k, write_csv


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (dataset.user_ids[user], dataset.candidate_ids[candidate])
        for user, candidate in zip(dataset.user_positions, dataset.candidate_positions, strict=True)
    ]


def test_release_is_read_identically_in_every_layout(
    write_release: WriteRelease, tmp_path: Path
) -> None:
    dataset = load(DataConfig(source=str(write_release(tmp_path))))
    assert dataset.user_ids == ("2", "10")
    assert dataset.candidate_ids == (
        "Toy Story (1995)",
        "Café de Flore (2011)",
        "Chasing Amy (1997)",
        "Never: Rated (2001)",
    )
    assert pairs(dataset) == [
        ("2", "Chasing Amy (1997)"),
        ("2", "Café de Flore (2011)"),
        ("2", "Chasing Amy (1997)"),
        ("10", "Chasing Amy (1997)"),
        ("10", "Toy Story (1995)"),
    ]
    assert dataset.ratings is not None
    assert dataset.timestamps is not None
    assert dataset.ratings.tolist() == [4, 3, 2, 1, 5]
    assert dataset.timestamps.tolist() == [100, 200, 400, 250, 300]
    assert dataset.ratings.dtype == np.float32
    assert dataset.timestamps.dtype == np.int64
    assert dataset.user_positions.dtype == dataset.candidate_positions.dtype == np.int32


def test_movies_with_one_title_unite_their_genres(
    write_release: WriteRelease, tmp_path: Path
) -> None:
    dataset = load(DataConfig(source=str(write_release(tmp_path))))
    genres, years = dataset.attributes["genres"], dataset.attributes["year"]
    assert genres.values is not None
    assert tuple(map(sorted, genres.values)) == (
        ["Animation", "Children"],
        ["Drama"],
        ["Comedy", "Romance"],
        [],
    )
    assert years.numbers is not None
    assert years.numbers.tolist() == [1995, 2011, 1997, 2001]


def test_movie_ids_keep_movies_with_one_title_apart(
    write_release: WriteRelease, tmp_path: Path
) -> None:
    dataset = load(DataConfig(source=str(write_release(tmp_path)), candidate_id="movie_id"))
    assert dataset.candidate_ids == ("1", "2", "10", "11", "20")
    assert dataset.titles[2] == dataset.titles[3] == "Chasing Amy (1997)"


def test_strip_year_merges_remakes(tmp_path: Path) -> None:
    folder = write_csv(tmp_path)
    with folder.joinpath("movies.csv").open("a") as stream:
        stream.write("30,Toy Story (2030),Western\n")
    dataset = load(DataConfig(source=str(folder), strip_year=True))
    assert dataset.candidate_ids == ("Toy Story", "Café de Flore", "Chasing Amy", "Never: Rated")
    genres, years = dataset.attributes["genres"], dataset.attributes["year"]
    assert genres.values is not None
    assert genres.values[0] == ("Animation", "Children", "Western")
    assert years.numbers is not None
    assert years.numbers[0] == 1995


def replace(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        folder.joinpath(name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("writer", "change", "message"),
    [
        (
            write_csv,
            lambda f: (f / "movies.csv").unlink(),
            r"ratings.csv but no movies.csv; unpack",
        ),
        (write_csv, lambda f: (f / "ratings.csv").unlink(), r"none of ratings.csv, .*give the fol"),
        (write_csv, write("ratings.csv", b""), r"ratings.csv is empty; was its download inter"),
        (write_csv, write("movies.csv", b""), r"movies.csv is empty; was its download inter"),
        (
            write_csv,
            write("ratings.csv", b"userId,movieId,rating,timestamp\n"),
            r"ratings.csv has no rows; it needs at least one",
        ),
        (
            write_csv,
            replace("ratings.csv", b"movieId", b"film"),
            r"ratings.csv has no column 'movieId', only userId, film, rating, timestamp; rename",
        ),
        (
            write_csv,
            replace("movies.csv", b"title", b"name"),
            r"movies.csv has no column 'title', only movieId, name, genres; rename",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b"2,2,good,200"),
            r"ratings.csv, line 3, column 'rating': 'good' is not a number; correct",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b"2,2,inf,200"),
            r"ratings.csv, line 3, column 'rating': 'inf' is not a finite number; correct",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b"2,2,3,soon"),
            r"ratings.csv, line 3, column 'timestamp' holds 'soon', which is neither seconds",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b",2,3,200"),
            r"ratings.csv, line 3, column 'userId' is empty; fill it in or remove",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b"2,2,,200"),
            r"ratings.csv, line 3, column 'rating' is empty; fill it in or remove",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b"2,2,3"),
            r"ratings.csv, line 3 has 3 fields instead of 4 \(userId, movieId, rating, time",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b"2,777,3,200"),
            r"ratings.csv, line 3, .*candidate '777' is not in .*movies.csv; add it .*\(1 rows",
        ),
        (
            write_csv,
            replace("movies.csv", "Café".encode(), b"Caf\xe9"),
            r"movies.csv, line 3 is not UTF-8 \(byte 0xe9 at 7\); convert it, or name the encoding",
        ),
        (
            write_csv,
            replace("ratings.csv", b"2,2,3,200", b"\xe9,2,3,200"),
            r"ratings.csv, line 3 is not UTF-8 \(byte 0xe9 at 1\); convert it",
        ),
        (
            write_csv,
            replace("movies.csv", b"11,", b"10,"),
            r"movies.csv, line 5, column 'movieId': movie '10' is listed twice; remove one",
        ),
        (
            write_1m,
            replace("ratings.dat", b"2::2::3::200", b"2::2::x::200"),
            r"ratings.dat, line 2, column 'rating': 'x' is not a number",
        ),
        (
            write_1m,
            replace("ratings.dat", b"2::2::3::200", b"2,2,3,200"),
            r"ratings.dat, line 2 has 1 fields instead of 4",
        ),
        (
            write_1m,
            replace("movies.dat", b"::Toy Story (1995)::", b"::::"),
            r"movies.dat, line 1, column 'title' is empty; fill it in",
        ),
        (write_1m, lambda f: (f / "movies.dat").unlink(), r"ratings.dat but no movies.dat"),
        (
            write_100k,
            replace("u.data", b"2\t2\t3\t200", b"2\t2\t3"),
            r"u.data, line 2 has 3 fields instead of 4",
        ),
        (
            write_100k,
            replace("u.item", b"|01-Jan-1995", b""),
            r"u.item, line 1 has 23 fields instead of 24; correct or remove it",
        ),
        (
            write_100k,
            replace("u.data", b"2\t2\t3\t200", b"2\t77\t3\t200"),
            r"u.data, line 2, .*candidate '77' is not in .*u.item",
        ),
    ],
)
def test_fault_is_named_in_one_line(
    writer: WriteRelease, change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = writer(tmp_path)
    change(folder)
    with pytest.raises(DataError, match=message) as caught:
        load(DataConfig(source=str(folder)))
    assert "\n" not in str(caught.value)


def test_folder_above_the_release_is_pointed_down(tmp_path: Path) -> None:
    inner = tmp_path / "ml-latest-small"
    inner.mkdir()
    write_csv(inner)
    with pytest.raises(DataError, match=r"ml-latest-small has; give that folder"):
        load(DataConfig(source=str(tmp_path)))


def test_packed_release_is_to_be_unpacked(tmp_path: Path) -> None:
    tmp_path.joinpath("ml-1m.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"ml-1m.zip; unzip it and give its folder"):
        load(DataConfig(source=str(tmp_path)))


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    folder = write_csv(tmp_path)
    path = folder / "ratings.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n2,2,3", b"\r\n\r\n2,2,3"))
    assert load(DataConfig(source=str(folder))).num_interactions == 5


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    folder = write_csv(tmp_path)
    replace("ratings.csv", b"2,2,3,200", b"2,777,3,200")(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="777"):
            load(DataConfig(source=str(folder)))
        gc.collect()


def test_real_latest_small_has_its_published_numbers(latest_small: Path) -> None:
    dataset = load(DataConfig(source=str(latest_small), candidate_id="movie_id"))
    assert dataset.num_interactions == 100_836
    assert len(dataset.user_ids) == 610
    assert len(dataset.candidate_ids) == 9_742
    by_title = load(DataConfig(source=str(latest_small)))
    assert len(by_title.candidate_ids) == 9_737
    assert by_title.num_interactions == 100_836


@given(st.lists(st.text("0123456789ab", min_size=1), unique=True))
def test_natural_order_sorts_numbers_by_value_before_words(ids: list[str]) -> None:
    order, rank = natural_order(ids)
    ordered = [ids[i] for i in order]
    numbers = [text for text in ordered if text.isdigit()]
    assert [int(text) for text in numbers] == sorted(int(text) for text in numbers)
    assert ordered[: len(numbers)] == numbers
    assert ordered[len(numbers) :] == sorted(ordered[len(numbers) :])
    assert [ordered[rank[i]] for i in range(len(ids))] == ids
