"""Queries from kept events and those of a request, against plain NumPy."""

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.data.features import FeatureColumns
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.towers.events import EventTable, Request, joined, request_events
from shortlist.export.towers.feature_queries import FeatureQueries
from shortlist.export.towers.pooled import PooledPart
from shortlist.export.towers.query_tower import QueryTower

NUM_CANDIDATES, DIMENSION = 7, 3
USERS = ("a", "b", "c")
KEPT: tuple[list[int], ...] = ([3, 1, 4], [], [0])  # of each user; "b" has none and is unknown
HOUR = 3600.0


def histories(rows: tuple[list[int], ...], times: list[int] | None = None) -> Histories:
    """Histories of given candidates."""
    counts = [len(row) for row in rows]
    return Histories(
        events=Pairs(
            starts=np.concatenate([[0], np.cumsum(counts)]),
            columns=np.array([c for row in rows for c in row], np.int32),
        ),
        times=None if times is None else np.array(times),
        num_candidates=NUM_CANDIDATES,
    )


def request(
    rows: list[list[int]],
    ages: list[list[float]] | None = None,
    weights: list[list[float]] | None = None,
    *,
    features: list[list[str]] | None = None,
) -> Request:
    shape = np.shape(rows)
    return Request(
        positions=tf.constant(rows, tf.int32),
        ages=tf.constant(np.full(shape, -1.0) if ages is None else ages, tf.float32),
        weights=tf.constant(np.ones(shape) if weights is None else weights, tf.float32),
        features=tf.constant(features or [[]] * shape[0], tf.string),
    )


@pytest.fixture(scope="module")
def embeddings() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(NUM_CANDIDATES, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def transform() -> npt.NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(DIMENSION, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def tower(transform: npt.NDArray[np.float32]) -> QueryTower:
    return QueryTower(
        USERS,
        known=np.array([True, False, True]),
        popular=np.full(DIMENSION, 9.0, np.float32),
        num_candidates=NUM_CANDIDATES,
        parts=[PooledPart(slice(0, 3), transform, decay=0.5, normalized=True)],
        kept=histories(KEPT),
        users=np.eye(3, 2, dtype=np.float32),
    )


def expected(
    embeddings: npt.NDArray[np.float32],
    transform: npt.NDArray[np.float32],
    events: list[int],
    weights: list[float] | None = None,
) -> npt.NDArray[np.float32]:
    """The taste's query of a history, with the decay of `tower`."""
    ages = np.arange(len(events))[::-1]
    factors = 0.5**ages * np.array(weights or [1.0] * len(events))
    pooled = factors @ embeddings[events] / np.sqrt(np.sum(factors**2))
    return np.asarray(pooled @ transform, np.float32)


def test_known_users_are_answered_from_their_kept_events(
    tower: QueryTower, embeddings: npt.NDArray[np.float32], transform: npt.NDArray[np.float32]
) -> None:
    users = tower.positions(tf.constant(["c", "a", "b", "nobody"]))
    np.testing.assert_array_equal(users, [2, 0, -1, -1])
    queries = tower(partial(tf.gather, embeddings), users)
    from_events = [expected(embeddings, transform, KEPT[user]) for user in (2, 0)]
    own = np.array([[0, 0, 0], [1, 0, 0]])  # rows of `users`, with a zero for the last dimension
    np.testing.assert_allclose(queries[:2], from_events + own, rtol=1e-5)
    np.testing.assert_allclose(queries[2:], np.full((2, 3), 9.0))


def test_events_of_a_request_follow_the_kept_ones(
    tower: QueryTower, embeddings: npt.NDArray[np.float32], transform: npt.NDArray[np.float32]
) -> None:
    n = NUM_CANDIDATES
    asked = request(
        [[6, n, 2], [n, n, n], [5, 2, n]],
        weights=[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 0.5, 1.0]],
    )
    queries = tower(partial(tf.gather, embeddings), tf.constant([0, -1, -1], tf.int64), asked)
    np.testing.assert_allclose(
        queries[0] - [1, 0, 0], expected(embeddings, transform, [*KEPT[0], 6, 2]), rtol=1e-5
    )
    np.testing.assert_allclose(queries[1], [9.0] * 3)
    np.testing.assert_allclose(
        queries[2], expected(embeddings, transform, [5, 2], [2.0, 0.5]), rtol=1e-5
    )


def test_events_without_weight_count_for_nothing(
    tower: QueryTower, embeddings: npt.NDArray[np.float32]
) -> None:
    asked = request([[1, 2]], weights=[[0.0, float("nan")]])
    queries = tower(partial(tf.gather, embeddings), tf.constant([-1], tf.int64), asked)
    np.testing.assert_allclose(queries, [[9.0] * 3])


def test_tower_without_events_keeps_the_queries(
    tower: QueryTower, embeddings: npt.NDArray[np.float32]
) -> None:
    embed, users = partial(tf.gather, embeddings), tf.constant([0, -1, 2], tf.int64)
    queries = tower(embed, users)
    without = tower.without_events(USERS, queries.numpy())
    assert without.kept is None
    np.testing.assert_allclose(without(embed, users), queries, rtol=1e-6)


def test_gaps_of_a_request_are_those_of_histories() -> None:
    ages = [10 * HOUR, 10 * HOUR, 2 * HOUR, 0.0]
    events = request_events(request([[0, 1, 2, 3]], [ages]), NUM_CANDIDATES)
    times = [int(100 * HOUR - age) for age in ages]
    np.testing.assert_array_equal(events.gaps, histories(([0, 1, 2, 3],), times).gaps)


def test_gaps_next_to_unknown_ages_are_unknown() -> None:
    ages = [[900.0, -1.0, 100.0, 200.0], [-1.0, 50.0, 40.0, -1.0]]
    events = request_events(request([[0, 1, 2, 3], [0, 1, 2, 3]], ages), NUM_CANDIDATES)
    # Ages that grow are taken for the same time.
    np.testing.assert_array_equal(events.gaps, [0, 0, 0, 1, 0, 0, 4, 0])


def test_events_are_joined_row_by_row() -> None:
    table = EventTable(histories(KEPT, [0, 60, 7000, 5]))
    kept = table.events(tf.constant([2, -1, 0], tf.int64))
    np.testing.assert_array_equal(kept.gaps, [0, 0, 6, 13])
    later = request_events(request([[6, 5], [4, NUM_CANDIDATES], [7, 7]]), NUM_CANDIDATES)
    events = joined(kept, later)
    np.testing.assert_array_equal(events.splits, [0, 3, 4, 7])
    np.testing.assert_array_equal(events.positions, [0, 6, 5, 4, 3, 1, 4])
    np.testing.assert_array_equal(events.rows, [0, 0, 0, 1, 2, 2, 2])


def test_only_relations_of_weights_count(embeddings: npt.NDArray[np.float32]) -> None:
    """Seconds watched or prices may be weights: all twice as large must change nothing."""
    part = PooledPart(slice(0, 3), np.ones(3, np.float32), decay=0.5, relative=True)
    answers = []
    for weights in ([1.0, 1.0], [60.0, 60.0], [1.0, 3.0], [60.0, 180.0]):
        events = request_events(request([[1, 2]], weights=[weights]), NUM_CANDIDATES)
        padded = tf.gather(embeddings, tf.concat([events.positions, [0]], axis=0))
        answers.append(part(padded, events).numpy())
    np.testing.assert_allclose(answers[0], [embeddings[1] / 2 + embeddings[2]], rtol=1e-5)
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-5)
    np.testing.assert_allclose(answers[3], answers[2], rtol=1e-5)
    assert np.abs(answers[2] - answers[0]).max() > 0.01


def test_linear_sums_have_a_factor_for_each_candidate(
    embeddings: npt.NDArray[np.float32],
) -> None:
    factors = np.arange(1.0, 8.0, dtype=np.float32)
    gains = np.array([2.0, 0.5], np.float32)
    part = PooledPart(slice(1, 3), gains, decay=1.0, factors=factors)
    events = EventTable(histories(([1, 2], []))).events(tf.constant([0, 1], tf.int64))
    padded = tf.gather(embeddings, tf.concat([events.positions, [0]], axis=0))
    sums = (2 * embeddings[1] + 3 * embeddings[2])[1:] * gains
    np.testing.assert_allclose(part(padded, events), [sums, [0, 0]], rtol=1e-5)


# --- features ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phones(transform: npt.NDArray[np.float32]) -> QueryTower:
    """A tower that adds (1, 2, 3) for `device=phone`, and half of it for users with events."""
    columns = FeatureColumns(
        names=("device=phone",),
        spans={"device": (0, 1)},
        borders={},
        users=Pairs.by_row(np.empty(0, np.int64), np.empty(0, np.int64), num_rows=len(USERS)),
        context={"device": np.array([0, -1])},
    )
    return QueryTower(
        USERS,
        known=np.array([True, False, True]),
        popular=np.full(DIMENSION, 9.0, np.float32),
        num_candidates=NUM_CANDIDATES,
        parts=[PooledPart(slice(0, 3), transform, decay=0.5, normalized=True)],
        kept=histories(KEPT),
        features=FeatureQueries(columns, np.array([[1, 2, 3]], np.float32)),
        feature_share=0.5,
    )


def test_features_add_more_for_users_of_whom_nothing_else_is_known(
    phones: QueryTower, embeddings: npt.NDArray[np.float32]
) -> None:
    embed = partial(tf.gather, tf.constant(embeddings))
    users = tf.constant([0, 1, -1, -1], tf.int64)  # with events, without, unknown twice
    history = [[NUM_CANDIDATES]] * 3 + [[2]]
    plain = phones(embed, users, request(history)).numpy()
    asked = phones(embed, users, request(history, features=[["device=phone"]] * 4)).numpy()
    vector = np.array([1, 2, 3], np.float32)
    shares = np.array([[0.5], [1.0], [1.0], [0.5]])
    np.testing.assert_allclose(asked - plain, shares * vector, rtol=0, atol=1e-5)


def test_unknown_features_and_none_change_nothing(
    phones: QueryTower, embeddings: npt.NDArray[np.float32]
) -> None:
    embed = partial(tf.gather, tf.constant(embeddings))
    users = tf.constant([0, -1], tf.int64)
    nothing = [[NUM_CANDIDATES]] * 2
    plain = phones(embed, users).numpy()
    for features in (None, [["", "device=tablet"], ["colour=red", ""]]):
        asked = phones(embed, users, request(nothing, features=features)).numpy()
        np.testing.assert_array_equal(asked, plain)


def test_tower_without_features_ignores_them(
    tower: QueryTower, embeddings: npt.NDArray[np.float32]
) -> None:
    embed = partial(tf.gather, tf.constant(embeddings))
    users = tf.constant([-1], tf.int64)
    asked = tower(embed, users, request([[NUM_CANDIDATES]], features=[["device=phone"]]))
    np.testing.assert_array_equal(asked, tower(embed, users))


def test_kept_weights_count_as_those_of_a_request(
    embeddings: npt.NDArray[np.float32], transform: npt.NDArray[np.float32]
) -> None:
    weights = np.array([2.0, 0.5, 7.0, 1.0], np.float32)
    plain = histories(KEPT)
    kept = replace(plain, events=replace(plain.events, weights=weights))
    parts = [PooledPart(slice(0, DIMENSION), transform, decay=0.9, normalized=True)]
    tower = partial(
        QueryTower,
        USERS,
        known=np.array([True, False, True]),
        popular=np.zeros(DIMENSION, np.float32),
        num_candidates=NUM_CANDIDATES,
        parts=parts,
    )
    embed = partial(tf.gather, tf.constant(embeddings))
    asked = request([KEPT[0]], weights=[weights[:3].tolist()])
    by_id = tower(kept=kept)(embed, tf.constant([0], tf.int64))
    by_request = tower(kept=kept)(embed, tf.constant([-1], tf.int64), asked)
    np.testing.assert_allclose(by_id, by_request, rtol=1e-6)
    without = tower(kept=plain)(embed, tf.constant([0], tf.int64))
    assert not np.allclose(by_id, without)
