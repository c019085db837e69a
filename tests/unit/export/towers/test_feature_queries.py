"""What the features of a request add to its query."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.export._tf import tf
from shortlist.export.data import Attribute, Context, Dataset
from shortlist.export.data.features import FeatureColumns
from shortlist.export.towers.feature_queries import FeatureQueries

AGES = np.array([*range(10, 60), 31.5], np.float64)
NUM_USERS = len(AGES)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset(
        name="users",
        user_ids=tuple(map(str, range(NUM_USERS))),
        candidate_ids=("a",),
        titles=("a",),
        user_positions=np.arange(NUM_USERS, dtype=np.int32),
        candidate_positions=np.zeros(NUM_USERS, np.int32),
        user_attributes={
            "age": Attribute(numbers=AGES),
            "motto": Attribute(values=(("x=y", "née", "two\nlines"),) * NUM_USERS),
            "size": Attribute(numbers=np.full(NUM_USERS, np.nan)),
        },
        context={"device": Context(values=("phone",), codes=np.zeros(NUM_USERS, np.int32))},
    )


@pytest.fixture(scope="module")
def columns(dataset: Dataset) -> FeatureColumns:
    return FeatureColumns.of_dataset(dataset, np.arange(NUM_USERS))


@pytest.fixture(scope="module")
def vectors(columns: FeatureColumns) -> np.ndarray:
    values = np.random.default_rng(3).standard_normal((len(columns.names), 4))
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def queries(columns: FeatureColumns, vectors: np.ndarray) -> FeatureQueries:
    return FeatureQueries(columns, vectors)


def ask(queries: FeatureQueries, *features: str) -> list[float]:
    values: list[float] = (
        queries(tf.constant([features], tf.string, shape=[1, len(features)]))[0].numpy().tolist()
    )
    return values


def test_vectors_of_all_features_add_up(
    queries: FeatureQueries, columns: FeatureColumns, vectors: np.ndarray
) -> None:
    row = {name: vectors[place] for place, name in enumerate(columns.names)}
    expected = row["device=phone"] + row["motto=x=y"] + row["motto=two\nlines"]
    asked = ask(queries, "motto=x=y", "", "device=phone", "motto=two\nlines")
    np.testing.assert_allclose(asked, expected, atol=1e-6)


def test_features_with_a_known_name_and_value_are_counted(queries: FeatureQueries) -> None:
    rows = [
        ["device=phone", "motto=x=y", "age=31"],
        ["device=phone", "device=phone", ""],
        ["colour=red", "device=fridge", "age=old"],
        ["", "", ""],
    ]
    assert queries.known(tf.constant(rows)).numpy().tolist() == [3, 2, 0, 0]


def test_numbers_get_the_bucket_that_training_gave_them(
    queries: FeatureQueries, columns: FeatureColumns, dataset: Dataset, vectors: np.ndarray
) -> None:
    pairs = columns.of(dataset, np.arange(NUM_USERS))
    numeric = {place for place, name in enumerate(columns.names) if name.startswith("age")}
    for user, age in enumerate(AGES):
        (own,) = numeric & set(pairs.of(user).tolist())
        np.testing.assert_array_equal(ask(queries, f"age={age:g}"), vectors[own])
        np.testing.assert_array_equal(ask(queries, f"age={float(age)!r}"), vectors[own])


@pytest.mark.parametrize("text", ["age=9", "age=-1e99", "age= -5 ", "age=.5"])
def test_numbers_below_all_have_the_first_bucket(
    text: str, queries: FeatureQueries, columns: FeatureColumns, vectors: np.ndarray
) -> None:
    np.testing.assert_array_equal(ask(queries, text), vectors[columns.spans["age"][0]])


@pytest.mark.parametrize("text", ["age=60", "age=1e99", "age=" + "9" * 400])
def test_numbers_above_all_have_the_last_bucket(
    text: str, queries: FeatureQueries, columns: FeatureColumns, vectors: np.ndarray
) -> None:
    np.testing.assert_array_equal(ask(queries, text), vectors[columns.spans["age"][1] - 1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "age",
        "age=",
        "age=old",
        "age=nan",
        "age=1e999",
        "age=3 1",
        "age<31",
        "age>=59",
        "size=3",
        "device=tablet",
        "device",
        "device=Phone",
        "colour=red",
        "motto=x",
    ],
)
def test_unknown_names_and_values_add_nothing(text: str, queries: FeatureQueries) -> None:
    assert ask(queries, text) == [0.0] * 4
    assert ask(queries, text, "device=phone") == ask(queries, "device=phone")


def test_no_features_add_nothing(queries: FeatureQueries) -> None:
    assert queries(tf.zeros([3, 0], tf.string)).numpy().tolist() == [[0.0] * 4] * 3


@given(st.binary(max_size=20) | st.binary(max_size=10).map(lambda text: b"age=" + text))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_answered(queries: FeatureQueries, text: bytes) -> None:
    assert np.isfinite(queries(tf.constant([[text, b"device=phone"]])).numpy()).all()
