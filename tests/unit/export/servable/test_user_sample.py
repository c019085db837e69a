"""The sample of users that a version carries: complete histories of the users of lowest hash."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.export.config import SplitMethod
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import hash_ids
from shortlist.export.data.split import make_split
from shortlist.export.servable.self_test import sample_users
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.probe import (
    SampledUser,
    UserSample,
    read_user_sample,
    write_user_sample,
)


def rows(sample: UserSample) -> list[tuple[str, int, int | None, str]]:
    """All interactions of a sample with user, candidate, time and part."""
    return sorted(
        (user_id, candidate, time, part)
        for user_id, user in sample.users.items()
        for part in ("fitted", "held_out", "given")
        for candidate, time in getattr(user, part)
    )


@pytest.mark.parametrize("method", ["random", "new_users"])
@pytest.mark.parametrize("times", [True, False])
def test_small_data_is_recorded_whole(
    small_dataset: Dataset, tmp_path: Path, times: bool, method: SplitMethod
) -> None:
    data = small_dataset if times else dataclasses.replace(small_dataset, timestamps=None)
    split = make_split(data, method=method, validation_fraction=0.1)
    sample = sample_users(data, split)
    assert (sample.bound, sample.left_out) == (2**64, frozenset())
    part_of = dict.fromkeys(split.fitted.tolist(), "fitted")
    part_of |= dict.fromkeys(split.held_out.tolist(), "held_out")
    part_of |= dict.fromkeys(split.given.tolist(), "given")
    assert rows(sample) == sorted(
        (
            data.user_ids[data.user_positions[row]],
            int(data.candidate_positions[row]),
            None if data.timestamps is None else int(data.timestamps[row]),
            part_of[row],
        )
        for row in range(data.num_interactions)
    )
    write_user_sample(tmp_path, sample)
    stored = read_user_sample(tmp_path)
    assert stored == sample
    assert list(stored.users) == list(sample.users)
    assert (tmp_path / contract.USERS_FILE).stat().st_size < 20 * data.num_interactions


def test_large_data_is_recorded_for_the_users_of_lowest_hash(small_dataset: Dataset) -> None:
    counts = np.bincount(small_dataset.user_positions)
    most_per_user = int(np.sort(counts)[-3])  # two users have more
    split = make_split(small_dataset)
    sample = sample_users(small_dataset, split, most=600, most_per_user=most_per_user)
    ids = small_dataset.user_ids
    order = np.argsort(hash_ids(ids))
    total = 0
    for user in order:
        if counts[user] > most_per_user:
            assert (ids[user] in sample.left_out) == (hash_ids([ids[user]])[0] < sample.bound)
        elif hash_ids([ids[user]])[0] < sample.bound:
            own = sample.users[ids[user]]
            assert len(own.fitted) + len(own.held_out) == counts[user]
            total += counts[user]
        else:
            assert ids[user] not in sample.users
    assert 600 - most_per_user <= total <= 600
    assert sample.bound < 2**64


def test_a_user_without_a_given_part_is_stored_as_by_earlier_releases(tmp_path: Path) -> None:
    users = {
        "a": SampledUser(fitted=((1, 7),), held_out=((2, 9),)),
        "b": SampledUser(held_out=((2, 9),), given=((0, 5), (1, 6))),
    }
    write_user_sample(tmp_path, UserSample(bound=7, users=users))
    lines = gzip.decompress((tmp_path / contract.USERS_FILE).read_bytes()).decode().splitlines()
    assert lines[1:] == ['["a",[1],[7],[2],[9]]', '["b",[],[],[2],[9],[0,1],[5,6]]']
    stored = read_user_sample(tmp_path)
    assert stored is not None
    assert stored.users == users


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    assert read_user_sample(tmp_path) is None
    write_user_sample(tmp_path, UserSample(bound=7, users={}))
    file = tmp_path / contract.USERS_FILE
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(RepositoryError, match=r"shortlist_users\.jsonl\.gz cannot be read"):
        read_user_sample(tmp_path)
