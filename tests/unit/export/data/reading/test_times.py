"""Times in the forms that files hold them in, read from CSV and Parquet identically."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.export.data import DataConfig, DataError, load

Write = Callable[[Path, Sequence[Any]], Path]


def write_csv(folder: Path, times: Sequence[Any]) -> Path:
    path = folder / "own.csv"
    rows = [f"{user},a,{time}" for user, time in enumerate(times)]
    path.write_text("\n".join(["user_id,candidate_id,when", *rows, ""]))
    return path


def write_parquet(folder: Path, times: Sequence[Any]) -> Path:
    path = folder / "own.parquet"
    users = [str(user) for user in range(len(times))]
    table = pa.table({"user_id": users, "candidate_id": ["a"] * len(users), "when": list(times)})
    pyarrow.parquet.write_table(table, path)
    return path


def write_text_parquet(folder: Path, times: Sequence[Any]) -> Path:
    return write_parquet(folder, [str(time) for time in times])


@pytest.fixture(params=[write_csv, write_parquet, write_text_parquet])
def write_times(request: pytest.FixtureRequest) -> Write:
    writer: Write = request.param
    return writer


def read(path: Path) -> list[str]:
    """Return the times in the order of the rows, which is that of the users."""
    dataset = load(DataConfig(source=str(path), timestamp_column="when"))
    assert dataset.timestamps is not None
    return [f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S}" for t in dataset.timestamps]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([20240501, 20240502], ["2024-05-01 00:00:00", "2024-05-02 00:00:00"]),
        ([20240501.0, 20240502.0], ["2024-05-01 00:00:00", "2024-05-02 00:00:00"]),
        ([20240501103000, 20240502000000], ["2024-05-01 10:30:00", "2024-05-02 00:00:00"]),
        ([1714557600, 0], ["2024-05-01 10:00:00", "1970-01-01 00:00:00"]),
        ([1714557600.9, 1714557601], ["2024-05-01 10:00:00", "2024-05-01 10:00:01"]),
        ([1714557600999, 0], ["2024-05-01 10:00:00", "1970-01-01 00:00:00"]),
        ([1714557600999999, 1714557601000000], ["2024-05-01 10:00:00", "2024-05-01 10:00:01"]),
        ([1714557600999999999], ["2024-05-01 10:00:00"]),
        # Every unit is told by its size in unusual years, too.
        ([473385600000], ["1985-01-01 00:00:00"]),
        ([20, 30], ["1970-01-01 00:00:20", "1970-01-01 00:00:30"]),
        # Counters: hardly any of them spells a date.
        (
            [20240098, 20240099, 20240101],
            ["1970-08-23 06:14:58", "1970-08-23 06:14:59", "1970-08-23 06:15:01"],
        ),
        (["2024-05-01", "2024-05-01 10:00"], ["2024-05-01 00:00:00", "2024-05-01 10:00:00"]),
        (
            ["2024-05-01T10:00:00Z", "2024-05-01T10:00:00+02:00"],
            ["2024-05-01 10:00:00", "2024-05-01 08:00:00"],
        ),
        (["2024-05-01 10:00:00.123456789"], ["2024-05-01 10:00:00"]),
    ],
)
def test_times_are_read_in_any_form(
    write_times: Write, times: list[Any], expected: list[str], tmp_path: Path
) -> None:
    assert read(write_times(tmp_path, times)) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([date(2024, 5, 1)], ["2024-05-01 00:00:00"]),
        ([datetime(2024, 5, 1, 10, 0, 0, 999)], ["2024-05-01 10:00:00"]),
        ([datetime(2024, 5, 1, 10, tzinfo=UTC)], ["2024-05-01 10:00:00"]),
    ],
)
def test_parquet_types_are_read(times: list[Any], expected: list[str], tmp_path: Path) -> None:
    assert read(write_parquet(tmp_path, times)) == expected


@pytest.mark.parametrize(
    ("times", "line", "message"),
    [
        (
            ["2024-05-01T10:00:00Z", "2024-05-01 10:00:00"],
            (2, 1),
            (
                r"holds '2024-05-01T10:00:00Z' \(a time with a time zone\), but (line 3|row 2) "
                r"holds '2024-05-01 10:00:00' \(a time without a time zone\); write all times"
            ),
        ),
        (
            ["2024-05-01", "2024-05-02", 1714557600],
            (4, 3),
            (
                r"holds '1714557600' \(a number\), but (line 2|row 1) holds '2024-05-01' \(a time "
                r"without a time zone\); write all"
            ),
        ),
        (
            [1714557600, 1714557600000],
            (3, 2),
            (
                r"holds '1714557600000' \(milliseconds since 1970\), but (line 2|row 1) holds "
                r"'1714557600' \(seconds since 1970\)"
            ),
        ),
        (
            [1714557600, 1714557601, 20240501],
            (4, 3),
            r"holds '20240501' \(a date YYYYMMDD\), but (line 2|row 1) holds '1714557600'",
        ),
        ([20240430, 20240431], (3, 2), r"holds '20240431', which is not a date YYYYMMDD; correct"),
        ([1.0, float("inf")], (3, 2), r"holds 'inf', which is neither seconds since 1970 nor"),
        (["2024-05-01", "soon"], (3, 2), r"holds 'soon', which is neither"),
        (["10:30:00"], (2, 1), r"holds '10:30:00', which is neither"),
    ],
)
def test_what_is_not_a_time_is_named(
    write_times: Write, times: list[Any], line: tuple[int, int], message: str, tmp_path: Path
) -> None:
    if write_times is not write_csv and len({type(time) for time in times}) > 1:
        times = [str(time) for time in times]
    path = write_times(tmp_path, times)
    place = f"line {line[0]}" if path.suffix == ".csv" else f"row {line[1]}"
    with pytest.raises(DataError, match=rf"own\.\w+, {place}, column 'when' {message}"):
        read(path)


def test_number_beyond_int64_is_named(tmp_path: Path) -> None:
    table = {"user_id": ["1", "2"], "candidate_id": ["a", "b"]}
    times = pa.array([1, 2**63], pa.uint64())
    path = tmp_path / "own.parquet"
    pyarrow.parquet.write_table(pa.table({**table, "when": times}), path)
    with pytest.raises(DataError, match="row 2, column 'when' holds '9223372036854775808'"):
        read(path)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            [20240502, 20240501],
            "column 'when' is read as dates YYYYMMDD: 20240502 is 2024-05-02 00:00:00",
        ),
        (
            [30, 20],
            (
                "column 'when' is read as seconds since 1970, which gives times from "
                "1970-01-01T00:00:20 to 1970-01-01T00:00:30; convert the column if that is wrong"
            ),
        ),
        ([9999999999], "gives times from 2286-11-20T17:46:39 to 2286-11-20T17:46:39; convert"),
        # Seconds taken for nanoseconds on the way.
        ([datetime(1970, 1, 1, 0, 0, 1)], "gives times from 1970-01-01T00:00:01 to"),
    ],
)
def test_unusual_reading_is_said_in_one_line(
    times: list[Any], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="shortlist"):
        read(write_parquet(tmp_path, times))
    (record,) = caplog.records
    assert message in record.getMessage()


@pytest.mark.parametrize("times", [[1714557600], [1714557600000, 5], ["2024-05-01"]])
def test_usual_times_are_read_without_a_word(
    write_times: Write, times: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="shortlist"):
        read(write_times(tmp_path, times))
    assert not caplog.records
