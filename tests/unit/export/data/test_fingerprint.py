"""Fingerprints: equal for the same data in any order and under any name."""

import dataclasses

import numpy as np
import pytest

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import dataset_fingerprint, hash_ids, hash_rows


def reordered(dataset: Dataset) -> Dataset:
    """The same data with rows, users and candidates in another order."""
    random = np.random.default_rng(1)
    assert dataset.timestamps is not None
    rows = random.permutation(dataset.num_interactions)
    users, candidates = (
        random.permutation(len(ids)) for ids in (dataset.user_ids, dataset.candidate_ids)
    )
    return dataclasses.replace(
        dataset,
        name="another folder",
        user_ids=tuple(dataset.user_ids[user] for user in users),
        candidate_ids=tuple(dataset.candidate_ids[candidate] for candidate in candidates),
        user_positions=np.argsort(users)[dataset.user_positions[rows]].astype(np.int32),
        candidate_positions=np.argsort(candidates)[dataset.candidate_positions[rows]].astype(
            np.int32
        ),
        timestamps=dataset.timestamps[rows],
    )


def test_order_and_name_do_not_count(small_dataset: Dataset) -> None:
    assert dataset_fingerprint(reordered(small_dataset)) == dataset_fingerprint(small_dataset)


@pytest.mark.parametrize("change", ["user", "candidate", "time", "catalogue", "twice", "no times"])
def test_every_change_of_the_data_shows(small_dataset: Dataset, change: str) -> None:
    users, candidates = small_dataset.user_positions, small_dataset.candidate_positions
    times = small_dataset.timestamps
    assert times is not None
    one = np.arange(len(users)) == 0
    ids = small_dataset.candidate_ids
    changed: dict[str, dict[str, object]] = {
        "user": {"user_positions": np.where(one, (users + 1) % 60, users).astype(np.int32)},
        "candidate": {
            "candidate_positions": np.where(one, (candidates + 1) % 150, candidates).astype(
                np.int32
            )
        },
        "time": {"timestamps": times + one},
        "catalogue": {"candidate_ids": (*ids[:-1], "another id")},
        "twice": {
            "user_positions": np.append(users, users[:1]),
            "candidate_positions": np.append(candidates, candidates[:1]),
            "timestamps": np.append(times, times[:1]),
        },
        "no times": {"timestamps": None},
    }
    other = dataclasses.replace(small_dataset, **changed[change])  # type: ignore[arg-type]
    assert dataset_fingerprint(other) != dataset_fingerprint(small_dataset)


def test_user_and_candidate_are_not_interchangeable(small_dataset: Dataset) -> None:
    pair = dataclasses.replace(
        small_dataset,
        user_ids=("a", "b"),
        candidate_ids=("a", "b"),
        user_positions=np.array([0, 1], np.int32),
        candidate_positions=np.array([1, 0], np.int32),
        timestamps=None,
    )
    first, second = hash_rows(pair)
    assert first != second


def test_hashes_never_change() -> None:
    """Versions of different releases are compared by them."""
    assert hash_ids(["42", "Käse", ""]).tolist() == [
        8820412187630416983,
        14613103916627409840,
        13020603013274838756,
    ]
