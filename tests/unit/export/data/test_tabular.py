"""Interactions in CSV and Parquet, with and without a catalogue."""

import datetime
import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.export.data import DataConfig, DataError, Dataset, load
from shortlist.export.data.reading.values import MISSING
from shortlist.export.data.sources._assemble import sorted_rows

ROWS: dict[str, list[Any]] = {
    "user_id": ["007", "b", "b"],
    "candidate_id": ["x,1", "y", "x,1"],
    "rating": [1.5, 2.0, 3.0],
    "timestamp": [30, 20, 10],
}
Write = Callable[[Path, dict[str, list[Any]]], Path]


def write_csv(folder: Path, rows: dict[str, list[Any]], name: str = "own.csv") -> Path:
    lines = [",".join(rows)]
    lines += [",".join(f'"{value}"' for value in row) for row in zip(*rows.values(), strict=True)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def write_parquet(folder: Path, rows: dict[str, list[Any]], name: str = "own.parquet") -> Path:
    path = folder / name
    pyarrow.parquet.write_table(pa.table(rows), path)
    return path


@pytest.fixture(params=[write_csv, write_parquet], ids=["csv", "parquet"])
def write_rows(request: pytest.FixtureRequest) -> Write:
    writer: Write = request.param
    return writer


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    return [
        (dataset.user_ids[user], dataset.candidate_ids[candidate])
        for user, candidate in zip(dataset.user_positions, dataset.candidate_positions, strict=True)
    ]


def test_both_formats_are_read_identically(write_rows: Write, tmp_path: Path) -> None:
    dataset = load(DataConfig(source=str(write_rows(tmp_path, ROWS))))
    assert pairs(dataset) == [("007", "x,1"), ("b", "x,1"), ("b", "y")]
    assert dataset.ratings is not None
    assert dataset.timestamps is not None
    assert dataset.ratings.tolist() == [1.5, 3.0, 2.0]
    assert dataset.timestamps.tolist() == [30, 10, 20]
    assert dataset.titles == dataset.candidate_ids == ("x,1", "y")


def test_columns_can_have_other_names(write_rows: Write, tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {
        "who": ["1", "2"],
        "what": ["a", "b"],
        "stars": [1, 2],
        "when": [5, 6],
    }
    dataset = load(
        DataConfig(
            source=str(write_rows(tmp_path, rows)),
            user_column="who",
            candidate_column="what",
            rating_column="stars",
            timestamp_column="when",
        )
    )
    assert pairs(dataset) == [("1", "a"), ("2", "b")]
    assert dataset.ratings is not None
    assert dataset.ratings.tolist() == [1, 2]


def test_ratings_and_times_are_optional(write_rows: Write, tmp_path: Path) -> None:
    rows = {name: ROWS[name] for name in ("user_id", "candidate_id")}
    dataset = load(DataConfig(source=str(write_rows(tmp_path, rows))))
    assert dataset.ratings is None
    assert dataset.timestamps is None
    assert dataset.num_interactions == 3


def test_compressed_and_tab_separated_text_is_read(tmp_path: Path) -> None:
    packed = tmp_path / "own.csv.gz"
    packed.write_bytes(gzip.compress(write_csv(tmp_path, ROWS).read_bytes()))
    tabs = tmp_path / "own.tsv"
    tabs.write_text("user_id\tcandidate_id\n1\ta,b\n")
    assert load(DataConfig(source=str(packed))).num_interactions == 3
    assert pairs(load(DataConfig(source=str(tabs)))) == [("1", "a,b")]


def test_dates_become_seconds(tmp_path: Path) -> None:
    when = [datetime.datetime(2020, 1, 1, 12), datetime.datetime(2020, 1, 2)]
    rows: dict[str, list[Any]] = {
        "user_id": ["1", "2"],
        "candidate_id": ["a", "b"],
        "timestamp": when,
    }
    for path in (write_csv(tmp_path, rows), write_parquet(tmp_path, rows)):
        dataset = load(DataConfig(source=str(path)))
        assert dataset.timestamps is not None
        assert dataset.timestamps.tolist() == [1577880000, 1577923200]


def test_whole_numbers_are_ids_in_parquet(tmp_path: Path) -> None:
    rows = {"user_id": [10, 9], "candidate_id": [1, 2]}
    dataset = load(DataConfig(source=str(write_parquet(tmp_path, rows))))
    assert dataset.user_ids == ("9", "10")


CATALOGUE: dict[str, list[Any]] = {
    "candidate_id": ["z", "y", "x,1"],
    "title": ["Zed", "Why", "Ex"],
    "tags": ["red|blue", "", "red"],
    "price": [1.5, 2.5, 3.5],
}


def test_catalogue_gives_order_titles_and_attributes(write_rows: Write, tmp_path: Path) -> None:
    source = write_rows(tmp_path, ROWS)
    catalogue = source.rename(source.with_stem("catalogue"))
    write_rows(tmp_path, CATALOGUE).rename(catalogue)
    source = write_rows(tmp_path, ROWS)
    dataset = load(DataConfig(source=str(source), candidates_file=str(catalogue)))
    assert dataset.candidate_ids == ("z", "y", "x,1")
    assert dataset.titles == ("Zed", "Why", "Ex")
    tags, price = dataset.attributes["tags"], dataset.attributes["price"]
    assert tags.values == (("red", "blue"), (), ("red",))
    assert price.numbers is not None
    assert price.numbers.tolist() == [1.5, 2.5, 3.5]
    assert pairs(dataset) == [("007", "x,1"), ("b", "x,1"), ("b", "y")]


def test_missing_attributes_are_allowed(tmp_path: Path) -> None:
    catalogue = tmp_path / "c.csv"
    catalogue.write_text('candidate_id,tags,price\ny,,\n"x,1",red,3\n')
    source = write_csv(tmp_path, ROWS)
    dataset = load(DataConfig(source=str(source), candidates_file=str(catalogue)))
    numbers = dataset.attributes["price"].numbers
    assert numbers is not None
    np.testing.assert_array_equal(numbers, [np.nan, 3.0])
    assert dataset.attributes["tags"].values == ((), ("red",))
    assert dataset.titles == ("y", "x,1")


def test_lists_in_parquet_are_values(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {"candidate_id": ["x,1", "y"], "tags": [["a", "b"], None]}
    catalogue = write_parquet(tmp_path, rows, "c.parquet")
    source = write_csv(tmp_path, ROWS)
    dataset = load(DataConfig(source=str(source), candidates_file=str(catalogue)))
    assert dataset.attributes["tags"].values == (("a", "b"), ())


def test_repeated_catalogue_entries_become_one(tmp_path: Path) -> None:
    rows = {"candidate_id": ["y", "x,1", "y"], "tags": ["a", "b", "c"]}
    catalogue = write_csv(tmp_path, rows, "c.csv")
    source = write_parquet(tmp_path, ROWS)
    dataset = load(DataConfig(source=str(source), candidates_file=str(catalogue)))
    assert dataset.candidate_ids == ("y", "x,1")
    assert dataset.attributes["tags"].values == (("a", "c"), ("b",))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, r"own.csv is empty; was its download interrupted"),
        ("user_id,candidate_id\n", {}, r"own.csv has no rows"),
        (
            "who,item\n1,a\n",
            {},
            r"no column of users with a usual name, only who, item; name it with",
        ),
        ("user_id,candidate_id\n1,a\n", {"rating_column": "stars"}, r"no column 'stars', only"),
        ("user_id,candidate_id\n1,a\n,b\n", {}, r"own.csv, line 3, column 'user_id' is empty"),
        ("user_id,candidate_id\n1,a\n2\n", {}, r"own.csv, line 3 has 1 fields instead of 2"),
        (
            "user_id,candidate_id,rating\n1,a,5\n1,b,five\n",
            {"rating_column": "rating"},
            r"line 3, column 'rating': 'five' is not a number; correct or remove it",
        ),
        (
            "user_id,candidate_id,timestamp\n1,a,5\n1,b,yesterday\n",
            {},
            r"line 3, column 'timestamp' holds 'yesterday', which is neither seconds",
        ),
        (
            "user_id,candidate_id,timestamp\n1,a,2020-01-01 00:00:00\n1,b,2020-13-01 00:00:00\n",
            {},
            r"line 3, column 'timestamp' holds '2020-13-01 00:00:00', which is neither seconds",
        ),
        (
            "user_id,candidate_id\n1,a\n",
            {"candidate_column": "user_id"},
            r"users and candidates cannot share the column 'user_id'",
        ),
        (
            "user_id,candidate_id\n1,a\n",
            {"candidates_file": "/nowhere/c.csv"},
            r"no such file: /nowhere/c.csv; check the path",
        ),
    ],
)
def test_fault_in_text_is_named(
    text: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(DataConfig(source=str(path), **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": ["1", None, "3"]}, r"own.parquet, row 2, column 'user_id' is empty; fill"),
        ({"candidate_id": ["1", "2", ""]}, r"own.parquet, row 3, column 'candidate_id' is empty"),
        ({"user_id": [True, False, True]}, r"'user_id' is of type bool; ids must be texts or"),
        ({"user_id": [1.0, 2.0, 2.0**60]}, r"holds the id 1152921504606846976 as a floating-point"),
        ({"rating": ["a", "1", "c"]}, r"rows 1 and 3, column 'rating': 'a' is not a number"),
        ({"rating": [[1.0], [], []]}, r"column 'rating' is of type list.* no numbers"),
        ({"rating": [1.0, float("nan"), 2.0]}, r"row 2, column 'rating' is empty; fill it in"),
        (
            {"timestamp": ["a", "b", "c"]},
            r"rows 1, 2 and 3, column 'timestamp' holds 'a', which is neither seconds",
        ),
    ],
)
def test_fault_in_parquet_is_named(
    changes: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path, {**ROWS, **changes})
    with pytest.raises(DataError, match=message):
        load(DataConfig(source=str(path), rating_column="rating"))


def test_late_odd_time_is_named(tmp_path: Path) -> None:
    """Types are inferred from the first part of a file; a fault may come later."""
    path = tmp_path / "own.csv"
    lines = [f"{row},a,{row}" for row in range(200_000)]
    lines[190_000] = "5,a,soon"
    path.write_text("\n".join(["user_id,candidate_id,timestamp", *lines]))
    with pytest.raises(DataError, match=r"line 190002, column 'timestamp' holds 'soon', which"):
        load(DataConfig(source=str(path)))


def test_unknown_candidate_is_named(write_rows: Write, tmp_path: Path) -> None:
    catalogue = write_csv(tmp_path, {"candidate_id": ["x,1"]}, "c.csv")
    source = write_rows(tmp_path, ROWS)
    with pytest.raises(
        DataError, match=r"own\.\w+, (line 3|row 2): candidate 'y' is not in .*c.csv; add it there"
    ):
        load(DataConfig(source=str(source), candidates_file=str(catalogue)))


@pytest.mark.parametrize("treatment", ["drop", "add"])
def test_unknown_candidates_cost_no_memory_for_the_longest_id(
    treatment: str, tmp_path: Path
) -> None:
    """As an array of one width, each of these ids would take 256 KiB."""
    long, count = "x" * 65_000, 20_000
    catalogue = tmp_path / "items.csv"
    catalogue.write_text("candidate_id\n" + "".join(f"c{n}\n" for n in range(count)) + long)
    ids = [*(f"c{n}" for n in range(count)), long, "unknown"]
    path = write_csv(tmp_path, {"user_id": ["u"] * len(ids), "candidate_id": ids})
    tracemalloc.start()
    dataset = load(
        DataConfig(
            source=str(path),
            candidates_file=str(catalogue),
            unknown_candidates=treatment,  # type: ignore[arg-type]
        )
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6
    assert dataset.num_interactions == count + (2 if treatment == "add" else 1)
    assert len(dataset.candidate_ids) == count + (2 if treatment == "add" else 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.parquet", b"not parquet", r"own.parquet is not a Parquet file .*written to its end"),
        ("own.xlsx", b"PK", r"none of the endings .csv, .tsv, .*; rename or convert it"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(DataConfig(source=str(path)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("movielens/2m", r"no data at movielens/2m; give sample, one of movielens/100k"),
        ("nowhere.csv", r"no such file: nowhere.csv; check the path"),
    ],
)
def test_source_that_is_nowhere_is_refused(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(DataConfig(source=source))


ids = (
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)
    .map(str.strip)
    .filter(lambda text: text not in MISSING)
)


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(
        st.tuples(ids, ids, st.integers(1, 5), st.integers(10**9, 2**31)),
        min_size=1,
        max_size=20,
    )
)
def test_what_was_written_is_read_in_both_formats(
    rows: list[tuple[str, str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("own")
    table = {name: [row[i] for row in rows] for i, name in enumerate(ROWS)}
    quoted = {name: [str(v).replace('"', '""') for v in values] for name, values in table.items()}
    for path in (write_parquet(folder, table), write_csv(folder, quoted)):
        dataset = load(DataConfig(source=str(path)))
        assert dataset.ratings is not None
        assert dataset.timestamps is not None
        values = [
            (*pair, int(rating), int(time))
            for pair, rating, time in zip(
                pairs(dataset), dataset.ratings, dataset.timestamps, strict=True
            )
        ]
        assert sorted(values) == sorted(rows)


@given(
    keys=st.lists(
        st.tuples(st.integers(0, 3), st.integers(-(2**40), 2**40) | st.just(5), st.integers(0, 2)),
        min_size=1,
    ),
    far=st.booleans(),
)
def test_rows_are_sorted_by_all_keys(keys: list[tuple[int, int, int]], far: bool) -> None:
    """Keys that fit into one number are sorted by it; with a far time they do not fit."""
    candidates, times, users = np.asarray([*keys, (0, 2**62 * far, 0)], np.int64).T
    columns = [candidates.astype(np.int32), times, users.astype(np.int32)]
    np.testing.assert_array_equal(sorted_rows(columns), np.lexsort(columns))
