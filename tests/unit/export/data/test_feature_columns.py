"""Columns of the features that requests can give."""

import numpy as np
import numpy.typing as npt

from shortlist.export.data import Attribute, Context, Dataset
from shortlist.export.data.features import FeatureColumns


def make(ages: npt.NDArray[np.float64] | None = None, devices: list[int] | None = None) -> Dataset:
    """Ten users with one interaction each; the last one speaks a language of its own."""
    attributes = {
        "language": Attribute(values=(*[("en", "nl")] * 5, *[("en",)] * 4, ("eo",))),
    }
    if ages is not None:
        attributes["age"] = Attribute(numbers=ages)
    context = {}
    if devices is not None:
        context["device"] = Context(values=("desktop", "phone"), codes=np.array(devices, np.int32))
    return Dataset(
        name="ten",
        user_ids=tuple(map(str, range(10))),
        candidate_ids=("a",),
        titles=("a",),
        user_positions=np.arange(10, dtype=np.int32),
        candidate_positions=np.zeros(10, np.int32),
        user_attributes=attributes,
        context=context,
    )


def names_of(columns: FeatureColumns, dataset: Dataset, row: int) -> set[str]:
    pairs = columns.of(dataset, np.array([row]), np.array([row]))
    return {columns.names[column] for column in pairs.columns}


def test_values_of_users_and_interactions_become_columns() -> None:
    dataset = make(devices=[1] * 5 + [0] * 5)
    columns = FeatureColumns.of_dataset(dataset, np.arange(10))
    assert columns.described() == {"language": ["en", "nl"], "device": ["desktop", "phone"]}
    assert names_of(columns, dataset, 0) == {"language=en", "language=nl", "device=phone"}
    assert names_of(columns, dataset, 8) == {"language=en", "device=desktop"}
    assert columns.of(dataset, np.array([0])).counts.tolist() == [2]


def test_rare_values_have_no_column() -> None:
    """They would tell who the user was, and nothing about others."""
    dataset = make(devices=[1] * 7 + [0, -1, -1])
    columns = FeatureColumns.of_dataset(dataset, np.arange(10))
    assert columns.described() == {"language": ["en", "nl"], "device": ["phone"]}
    assert names_of(columns, dataset, 7) == {"language=en"}
    assert names_of(columns, dataset, 9) == set()


def test_only_the_given_part_decides_on_the_columns() -> None:
    dataset = make(devices=[1] * 5 + [0] * 5)
    columns = FeatureColumns.of_dataset(dataset, np.arange(5, 10))
    assert columns.described() == {"device": ["desktop"]}
    assert names_of(columns, dataset, 0) == set()


def test_numbers_become_buckets_of_about_equal_size() -> None:
    ages = np.array([10.0, 20, 30, 40, 50, 60, 70, 80, np.nan, 90])
    dataset = make(ages)
    columns = FeatureColumns.of_dataset(dataset, np.arange(10))
    (bucket,) = names_of(columns, dataset, 4) - {"language=en", "language=nl"}
    assert bucket.startswith("age<5")
    assert "age" not in {name[:3] for name in names_of(columns, dataset, 8)}


def test_attribute_without_any_number_has_no_columns() -> None:
    dataset = make(np.full(10, np.nan))
    columns = FeatureColumns.of_dataset(dataset, np.arange(10))
    assert list(columns.described()) == ["language"]


def test_data_without_features_has_no_columns() -> None:
    dataset = Dataset(
        name="plain",
        user_ids=("1",),
        candidate_ids=("a",),
        titles=("a",),
        user_positions=np.zeros(3, np.int32),
        candidate_positions=np.zeros(3, np.int32),
    )
    columns = FeatureColumns.of_dataset(dataset, np.arange(3))
    assert columns.names == ()
    assert columns.of(dataset, np.array([0, 0]), np.array([0, 1])).counts.tolist() == [0, 0]


def test_some_features_keep_their_columns() -> None:
    dataset = make(np.arange(10.0), devices=[1] * 5 + [0] * 5)
    columns = FeatureColumns.of_dataset(dataset, np.arange(10))
    for features in (["device"], ["age", "device"], ["device", "language"], []):
        some, kept = columns.only(features)
        assert some.names == tuple(columns.names[column] for column in kept)
        assert list(some.described()) == features
        for row in range(10):
            expected = {
                name for name in names_of(columns, dataset, row) if name.startswith(tuple(features))
            }
            assert names_of(some, dataset, row) == (expected if features else set())
