"""Queries of `similar`, learned from candidates that the same users have."""

import dataclasses

import numpy as np
import pytest

from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.judge import judge_model
from shortlist.export.evaluation.similar import similar_quality
from shortlist.export.training.co_interactions import CoInteractions, co_interactions, fit_queries
from shortlist.export.training.train import train

pytestmark = pytest.mark.slow

NUM_CANDIDATES = 200


def dataset(rows: list[tuple[int, int]], *, times: bool = True, candidates: int = 6) -> Dataset:
    """Interactions (user, candidate) in the order of time."""
    users, chosen = np.array(rows, np.int32).T
    order = np.argsort(users, kind="stable")
    return Dataset(
        name="synthetic",
        user_ids=tuple(f"u{user}" for user in range(users.max() + 1)),
        candidate_ids=tuple(f"c{number}" for number in range(candidates)),
        user_positions=users[order],
        candidate_positions=chosen[order],
        timestamps=np.arange(len(users))[order] if times else None,
        titles=tuple(f"c{number}" for number in range(candidates)),
    )


def couples(num_users: int = 300) -> Dataset:
    """A user of candidate 2 i takes 2 i + 1 next, or the other way round."""
    random = np.random.default_rng(4)
    rows = []
    for user in range(num_users):
        for couple in random.choice(NUM_CANDIDATES // 2, 5, replace=False):
            pair = [2 * couple, 2 * couple + 1]
            rows += [(user, int(candidate)) for candidate in random.permutation(pair)]
    return dataset(rows, candidates=NUM_CANDIDATES)


def cells(pairs: CoInteractions) -> tuple[list[int], list[int]]:
    """Sources and targets of all pairs."""
    sources, entries = pairs.targets.cells(np.arange(pairs.targets.num_rows))
    return sources.tolist(), pairs.targets.columns[entries].tolist()


def test_pairs_are_neighbours_in_time_of_one_user() -> None:
    data = dataset([(0, 4), (0, 1), (1, 1), (0, 2), (1, 4), (0, 2), (1, 5)])
    pairs = co_interactions(data, np.arange(7), seed=0, window=1)
    cells_with_counts = list(zip(*cells(pairs), pairs.counts, strict=True))
    assert cells_with_counts == [(1, 2, 1), (1, 4, 2), (2, 1, 1), (4, 1, 2), (4, 5, 1), (5, 4, 1)]


def test_pairs_leave_out_what_is_held_out() -> None:
    data = dataset([(0, 4), (0, 1), (0, 2)])
    pairs = co_interactions(data, np.array([0, 2]), seed=0, window=1)
    assert list(zip(*cells(pairs), strict=True)) == [(2, 4), (4, 2)]


def test_pairs_without_times_are_of_one_user_all_the_same() -> None:
    data = dataset([(0, 4), (0, 1), (1, 2), (1, 3), (2, 5)], times=False)
    pairs = co_interactions(data, np.arange(5), seed=0, window=3)
    assert set(zip(*cells(pairs), strict=True)) == {(1, 4), (4, 1), (2, 3), (3, 2)}


def test_many_interactions_give_a_part_of_their_pairs() -> None:
    data = couples()
    everything = np.arange(data.num_interactions)
    whole = co_interactions(data, everything, seed=0).counts.sum()
    part = co_interactions(data, everything, seed=0, most_pairs=2400).counts.sum()
    assert 0.15 * whole < part < 0.3 * whole


@pytest.mark.parametrize(("sample", "least"), [(NUM_CANDIDATES, 0.9), (60, 0.6)])
@pytest.mark.parametrize("length", [1.0, 3.0, None])
def test_queries_find_the_other_half_of_a_couple(
    sample: int, least: float, length: float | None
) -> None:
    """Embeddings say nothing here; lengths are equal, or as inner products leave them."""
    data = couples()
    random = np.random.default_rng(1)
    embeddings = random.normal(size=(NUM_CANDIDATES, 32)).astype(np.float32)
    if length is not None:
        embeddings *= length / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = co_interactions(data, np.arange(data.num_interactions), seed=0, window=1)
    queries = fit_queries(pairs, embeddings, seed=0, sample_size=sample)
    scores = queries @ embeddings.T
    np.fill_diagonal(scores, -np.inf)
    partner = np.arange(NUM_CANDIDATES) ^ 1
    assert np.mean(scores.argmax(axis=1) == partner) > least
    if length is not None:
        np.testing.assert_allclose(np.linalg.norm(queries, axis=1), length, rtol=1e-4)


def test_candidates_without_pairs_keep_their_embedding() -> None:
    embeddings = np.eye(4, dtype=np.float32)
    targets = Pairs.by_row(np.array([0, 1]), np.array([1, 0]), num_rows=4)
    pairs = CoInteractions(targets=targets, counts=np.ones(2, np.float32))
    queries = fit_queries(pairs, embeddings, seed=0)
    np.testing.assert_array_equal(queries[2:], embeddings[2:])
    assert queries[0] @ embeddings[1] > 0.1
    nothing = co_interactions(dataset([(0, 1), (1, 2)]), np.arange(2), seed=0)
    np.testing.assert_array_equal(fit_queries(nothing, embeddings, seed=0), embeddings)


def test_quality_equals_a_plain_count() -> None:
    data = couples(40)
    split = make_split(data, method="random", held_out_fraction=0.3, seed=2)
    random = np.random.default_rng(3)
    # Few distinct numbers, so that many scores are equal.
    queries, embeddings = (
        random.integers(-1, 2, (NUM_CANDIDATES, 4)).astype(np.float32) for _ in range(2)
    )
    hits = asked = 0
    for place in split.held_out:
        before = [
            row
            for row in split.fitted
            if row < place and data.user_positions[row] == data.user_positions[place]
        ]
        if not before:
            continue
        source, target = data.candidate_positions[[before[-1], place]]
        asked += 1
        scores = {c: float(queries[source] @ embeddings[c]) for c in range(NUM_CANDIDATES)}
        del scores[source]
        hits += target in sorted(scores, key=lambda c: (-scores[c], c))[:10]
    quality = similar_quality(data, split, queries, embeddings)
    assert quality.num_pairs == asked > 50
    assert quality.hit_rate == hits / asked > 0


def test_trained_queries_beat_the_towers(caplog: pytest.LogCaptureFixture) -> None:
    data = couples()
    split = make_split(data, method="leave_last_out", seed=1)
    config = TrainConfig(epochs=3, batch_size=64, similar="co_interactions", split="leave_last_out")
    model = train(data, split, ModelConfig(embedding_dim=32, query_tower="table"), config)
    similar = judge_model(model, data, split).similar
    assert similar is not None
    assert similar.num_pairs == 300
    assert similar.hit_rate > 0.9
    assert similar.towers_hit_rate < similar.hit_rate
    again = train(data, split, ModelConfig(embedding_dim=32, query_tower="table"), config)
    assert again.similar_queries is not None
    np.testing.assert_array_equal(again.similar_queries, model.similar_queries)


def test_towers_are_the_default_and_the_same_either_way(small_dataset: Dataset) -> None:
    data = small_dataset
    split = Split(training=np.arange(1400), held_out=np.arange(1400, data.num_interactions))
    config = TrainConfig(epochs=1)
    towers = train(data, split, ModelConfig(embedding_dim=8, query_tower="table"), config)
    assert towers.similar_queries is None
    assert judge_model(towers, data, split).similar is None
    by_pairs = dataclasses.replace(config, similar="co_interactions")
    other = train(data, split, ModelConfig(embedding_dim=8, query_tower="table"), by_pairs)
    np.testing.assert_array_equal(other.candidate_embeddings, towers.candidate_embeddings)
    with pytest.raises(ValueError, match=r"similar must be one of towers, co_interactions"):
        TrainConfig(similar="users")  # type: ignore[arg-type]
