"""Attributes of users, and circumstances of interactions."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.export.data import DataConfig, DataError, Dataset, load
from shortlist.export.data.fingerprint import dataset_fingerprint
from shortlist.export.data.sources.tfds import _prepared_users
from shortlist.export.data.split import Split
from shortlist.export.training.checkpoint import data_fingerprint
from tests.unit.export.data.conftest import write_1m, write_100k, write_csv

INTERACTIONS = "user_id,candidate_id,timestamp,device\n" + "\n".join(
    f"{user},{candidate},2024-05-0{day} {hour:02}:30:00,{device}"
    for user, candidate, day, hour, device in (
        ("u1", "a", 1, 8, "phone"),
        ("u1", "b", 2, 23, "desktop"),
        ("u2", "a", 5, 0, ""),
        ("u3", "c", 6, 12, " phone "),
    )
)
USERS = "user_id,age,languages\nu3,31,\nu1,,nl|en\nu9,70,fr\n"


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write(tmp_path, "own.csv", INTERACTIONS)


def context_of(dataset: Dataset, name: str) -> list[str | None]:
    context = dataset.context[name]
    return [context.values[code] if code >= 0 else None for code in context.codes.tolist()]


def test_table_of_users_gives_attributes_in_the_order_of_the_users(
    source: str, tmp_path: Path
) -> None:
    dataset = load(DataConfig(source=source, users_file=write(tmp_path, "users.csv", USERS)))
    assert dataset.user_ids == ("u1", "u2", "u3")
    assert dataset.user_attributes["languages"].values == (("nl", "en"), (), ())
    ages = dataset.user_attributes["age"].numbers
    assert ages is not None
    np.testing.assert_array_equal(ages, [np.nan, np.nan, 31])


def test_rows_of_one_user_are_united(source: str, tmp_path: Path) -> None:
    users = write(tmp_path, "users.csv", "user_id,tags\nu1,x\nu1,y|x\n")
    dataset = load(DataConfig(source=source, users_file=users))
    assert dataset.user_attributes["tags"].values == (("x", "y"), (), ())


def test_few_described_users_are_a_warning(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = write(tmp_path, "users.csv", "user_id,tags\nu1,x\n")
    with caplog.at_level(logging.WARNING):
        load(DataConfig(source=source, users_file=users))
    assert "users.csv describes 1 of 3 users" in caplog.text


def test_users_are_described_for_any_source(tmp_path: Path) -> None:
    users = write(tmp_path, "users.csv", "user_id,country\n1,nl\n2,de\n")
    config = DataConfig(
        source="sample",
        users_file=users,
        sample_users=10,
        sample_candidates=100,
        sample_interactions=200,
    )
    attributes = load(config).user_attributes
    assert attributes["country"].values is not None
    assert attributes["country"].values[:3] == (("nl",), ("de",), ())
    assert "interests" in attributes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,age\nu1,3\n", r"no column of users with a usual name, only name, age; name it with"),
        ("u_ser,age\nx1,3\n", r"none of the 3 users of own.csv: it has 'x1'"),
        (
            "user_id,age\nx7,3\nU2,4\n",
            r"users.csv has none of the 3 users of own.csv: it has 'U2', .* 'u2'; write the ids",
        ),
        ("user_id\nu1\n", r"users.csv has no column but 'user_id'; add attributes"),
        ("user_id,a=b\nu1,3\n", r"name 'a=b' must not be empty or contain '=', .*rename the col"),
        ("user_id,device\nu1,3\n", r"'device' is both an attribute of users and a context col"),
        ("user_id,age\nu1\n", r"users.csv, line 2 has 1 fields instead of 2"),
        ("user_id,age\n,3\n", r"users.csv, line 2, column 'user_id' is empty"),
    ],
)
def test_faulty_table_of_users_is_named_in_one_line(
    text: str, message: str, source: str, tmp_path: Path
) -> None:
    users = write(tmp_path, "users.csv", text)
    with pytest.raises(ValueError, match=message) as caught:
        load(DataConfig(source=source, users_file=users, context_columns=("device",)))
    assert "\n" not in str(caught.value)


def test_missing_table_of_users_is_noticed_before_the_interactions_are_read() -> None:
    with pytest.raises(DataError, match=r"no such file: /nowhere/users.csv; check the path"):
        load(DataConfig(source="/nowhere/own.csv", users_file="/nowhere/users.csv"))


def test_context_follows_the_interactions(source: str) -> None:
    dataset = load(DataConfig(source=source, context_columns=("device",)))
    assert dataset.context["device"].values == ("desktop", "phone")
    assert context_of(dataset, "device") == ["phone", "desktop", None, "phone"]


def test_parquet_gives_the_same_context(source: str, tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {
        "user_id": ["u1", "u1", "u2", "u3"],
        "candidate_id": ["a", "b", "a", "c"],
        "device": ["phone", "desktop", None, "phone"],
        "slot": [1, 10, 2, 1],
        "heat": [1.0, None, 2.0, 3.0],
    }
    path = tmp_path / "own.parquet"
    pyarrow.parquet.write_table(pa.table(rows), path)
    dataset = load(DataConfig(source=str(path), context_columns=("device", "slot")))
    assert context_of(dataset, "device") == ["phone", "desktop", None, "phone"]
    assert dataset.context["slot"].values == ("1", "2", "10")
    dataset = load(DataConfig(source=str(path), context_columns=("heat",)))
    assert context_of(dataset, "heat") == ["1", None, "2", "3"]


def test_hour_and_weekday_come_from_the_times(source: str) -> None:
    dataset = load(DataConfig(source=source))
    assert context_of(dataset, "hour") == ["8", "23", "0", "12"]
    assert context_of(dataset, "weekday") == ["wednesday", "thursday", "sunday", "monday"]


def test_dates_have_no_hour(tmp_path: Path) -> None:
    rows = "".join(f"u{n},a,2024-05-{n:02}\n" for n in range(1, 30))
    source = write(tmp_path, "own.csv", "user_id,candidate_id,timestamp\n" + rows)
    assert load(DataConfig(source=source)).context == {}


def test_own_column_takes_precedence_over_the_time(tmp_path: Path) -> None:
    text = INTERACTIONS.replace("device", "hour")
    source = write(tmp_path, "own.csv", text)
    dataset = load(DataConfig(source=source, context_columns=("hour",)))
    assert dataset.context["hour"].values == ("desktop", "phone")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("devise",), r"no column 'devise', .* such as 'device'"),
        (("timestamp",), r"times and context cannot share the column 'timestamp'"),
        (("user_id",), r"users and context cannot share the column 'user_id'"),
        (("device", "device"), r"context_columns must name columns, each once, got 'device'"),
        (("",), r"context_columns must name columns, each once, got ''"),
    ],
)
def test_faulty_context_column_is_named(
    columns: tuple[str, ...], message: str, source: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(DataConfig(source=source, context_columns=columns))


@pytest.mark.parametrize("source", ["sample", "movielens/100k"])
def test_context_column_needs_a_file_of_interactions(source: str) -> None:
    with pytest.raises(DataError, match=f"{source} has no column 'device'; --context-column needs"):
        load(DataConfig(source=source, context_columns=("device",)))


def test_configuration_survives_the_manifest(tmp_path: Path) -> None:
    config = DataConfig(
        source=str(tmp_path / "own.csv"),
        users_file=str(tmp_path / "users.csv"),
        context_columns=("device", "shop"),
    )
    assert config.as_json()["context_columns"] == ["device", "shop"]
    assert DataConfig.from_json(config.as_json()) == config
    assert DataConfig.from_json({"source": "sample"}).context_columns == ()


def test_features_change_what_training_resumes_but_not_the_identity_of_the_data(
    source: str,
) -> None:
    plain = load(DataConfig(source=source))
    device = load(DataConfig(source=source, context_columns=("device",)))
    split = Split(training=np.arange(3), held_out=np.arange(3, 4))
    assert dataset_fingerprint(plain) == dataset_fingerprint(device)
    assert data_fingerprint(plain, split) != data_fingerprint(device, split)
    without = dataclasses.replace(plain, context={})
    assert data_fingerprint(plain, split) != data_fingerprint(without, split)


# --- MovieLens -----------------------------------------------------------------------


def test_users_of_both_old_releases_are_read_identically(tmp_path: Path) -> None:
    old, new = tmp_path / "100k", tmp_path / "1m"
    old.mkdir()
    new.mkdir()
    write_100k(old).joinpath("u.user").write_text(
        "2|35|F|programmer|V3N4P\n10|18|M|writer|94043\n5|18|M|artist|1\n"
    )
    write_1m(new).joinpath("users.dat").write_text("10::M::18::20::94043\n2::F::35::12::V3N4P\n")
    for folder in (old, new):
        attributes = load(DataConfig(source=str(folder))).user_attributes
        assert attributes["gender"].values == (("F",), ("M",))
        assert attributes["occupation"].values == (("programmer",), ("writer",))
        assert attributes["zip"].values == (("V3N4P",), ("94043",))
        assert attributes["age"].numbers is not None
        assert attributes["age"].numbers.tolist() == [35, 18]


def test_release_without_users_has_no_attributes_of_them(tmp_path: Path) -> None:
    assert load(DataConfig(source=str(write_csv(tmp_path)))).user_attributes == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2|35|F|programmer\n", r"u.user, line 1 has 4 fields instead of 5 .*; correct"),
        ("10|1|M||\n2|x|F||\n", r"u.user, line 2, column 'age': 'x' is not a number; correct"),
    ],
)
def test_faulty_users_of_a_release_are_named(text: str, message: str, tmp_path: Path) -> None:
    write_100k(tmp_path).joinpath("u.user").write_text(text)
    with pytest.raises(DataError, match=message):
        load(DataConfig(source=str(tmp_path)))


def test_prepared_users_equal_those_of_the_release() -> None:
    def texts(*chunks: list[str]) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(chunk).dictionary_encode() for chunk in chunks])

    columns = {
        "user_id": texts(["10", "2"], ["2"]),
        "user_gender": pa.chunked_array([[True, False], [False]]),
        "bucketized_user_age": pa.chunked_array([[18.0, 35.0], [35.0]]),
        "raw_user_age": pa.chunked_array([[18.0, 36.0], [36.0]]),
        "user_occupation_text": texts(["writer", "programmer"], ["programmer"]),
        "user_zip_code": texts(["94043", "V3N4P"], ["V3N4P"]),
    }
    table = _prepared_users(columns, "movielens/100k-ratings")
    assert table is not None
    assert list(table.ids) == ["10", "2"]
    assert table.attributes["gender"].values == (("M",), ("F",))
    assert table.attributes["occupation"].values == (("writer",), ("programmer",))
    assert table.attributes["zip"].values == (("94043",), ("V3N4P",))
    assert table.attributes["age"].numbers is not None
    assert table.attributes["age"].numbers.tolist() == [18, 36]
    assert _prepared_users({"user_id": columns["user_id"]}, "movielens/25m-ratings") is None
