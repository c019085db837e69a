"""Synthetic data: reproducible, shaped like MovieLens, and worth learning."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from shortlist.export.data import DataConfig, DataError, Dataset, load

SMALL = DataConfig(
    source="sample", sample_users=500, sample_candidates=1000, sample_interactions=25_000
)


@pytest.fixture(scope="module")
def sample() -> Dataset:
    return load(SMALL)


def test_same_seed_gives_the_same_data(sample: Dataset) -> None:
    again = load(SMALL)
    assert again.candidate_ids == sample.candidate_ids
    np.testing.assert_array_equal(again.user_positions, sample.user_positions)
    np.testing.assert_array_equal(again.candidate_positions, sample.candidate_positions)
    np.testing.assert_array_equal(again.timestamps, sample.timestamps)
    np.testing.assert_array_equal(again.ratings, sample.ratings)


def test_another_seed_gives_other_data(sample: Dataset) -> None:
    other = load(dataclasses.replace(SMALL, sample_seed=7))
    assert other.candidate_ids != sample.candidate_ids


def test_titles_are_distinct_and_end_in_the_year(sample: Dataset) -> None:
    assert len(set(sample.candidate_ids)) == 1000
    years = sample.attributes["year"].numbers
    assert years is not None
    for title, year in zip(sample.titles, years, strict=True):
        assert re.search(rf" \({int(year)}\)$", title)


def test_every_user_has_20_distinct_candidates_or_more(sample: Dataset) -> None:
    pairs = set(
        zip(sample.user_positions.tolist(), sample.candidate_positions.tolist(), strict=True)
    )
    assert len(pairs) == sample.num_interactions
    assert np.bincount(sample.user_positions).min() >= 20
    assert sample.num_interactions == pytest.approx(25_000, rel=0.1)


def test_popularity_is_skewed(sample: Dataset) -> None:
    counts = np.sort(np.bincount(sample.candidate_positions, minlength=1000))[::-1]
    assert counts[:100].sum() > 0.3 * counts.sum()


def test_ratings_are_half_stars_and_times_ascend_by_user(sample: Dataset) -> None:
    assert sample.ratings is not None
    assert sample.timestamps is not None
    assert set(np.unique(sample.ratings * 2)) <= set(range(1, 11))
    same_user = np.diff(sample.user_positions) == 0
    assert (np.diff(sample.timestamps)[same_user] >= 0).all()


def test_taste_can_be_learned_beyond_popularity(sample: Dataset) -> None:
    """Held-out interactions are found by co-occurrence far more often than by popularity."""
    held_out = np.random.default_rng(0).random(sample.num_interactions) < 0.2
    users, candidates = sample.user_positions, sample.candidate_positions
    seen = np.zeros((500, 1000))
    seen[users[~held_out], candidates[~held_out]] = 1
    popular = np.repeat(seen.sum(axis=0)[None], 500, axis=0)
    norm = seen / np.sqrt(seen.sum(axis=0) + 1)
    hits = []
    for scores in (popular, seen @ (norm.T @ norm)):
        top = np.argsort(-np.where(seen > 0, -np.inf, scores), axis=1)[:, :10]
        hits.append((top[users[held_out]] == candidates[held_out][:, None]).any(axis=1).mean())
    assert hits[1] > 1.3 * hits[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_interactions": 300}, "at least 20 interactions per user"),
        ({"sample_candidates": 10}, "at most a quarter of all pairs"),
    ],
)
def test_impossible_size_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(dataclasses.replace(SMALL, **changes))
