"""What queries are computed by: windows, the map of the taste, and the linear model."""

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.evaluation.baselines.ease import fit_ease
from shortlist.export.towers.trained import embed_part
from shortlist.export.training.query.linear import Linear
from shortlist.export.training.query.taste import Taste
from shortlist.export.training.query.windows import with_windows

NUM_CANDIDATES = 40


def pairs(rows: list[list[int]]) -> Pairs:
    """Pairs of given rows."""
    return Pairs(
        starts=np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        columns=np.array([column for row in rows for column in row], np.int32),
    )


def rows(of: Pairs) -> list[list[int]]:
    """Rows of pairs."""
    return [of.of(row).tolist() for row in range(of.num_rows)]


@pytest.fixture(scope="module")
def users() -> Pairs:
    random = np.random.default_rng(3)
    sizes = random.integers(1, 15, 60)
    return pairs([random.choice(NUM_CANDIDATES, size, replace=False).tolist() for size in sizes])


def test_windows_follow_the_users() -> None:
    events = pairs([[0, 1, 2], [], list(range(10, 17))])
    assert rows(with_windows(events, 3)) == [*rows(events), [10, 11, 12], [13, 14, 15], [16]]
    assert rows(with_windows(events, 4)) == [*rows(events), [10, 11, 12, 13], [14, 15, 16]]
    assert rows(with_windows(events, 7)) == rows(events)


def test_taste_finds_the_map_from_histories_to_queries(users: Pairs) -> None:
    random = np.random.default_rng(4)
    candidates = random.normal(size=(NUM_CANDIDATES, 5)).astype(np.float32)
    true = random.normal(size=(5, 5))
    pooled = np.stack([candidates[row].sum(axis=0) / np.sqrt(len(row)) for row in rows(users)])
    queries = (pooled @ true).astype(np.float32)
    taste = Taste.of_rows(queries, candidates, users, num_users=50)
    assert taste.users.shape == (50, 5)
    histories = Histories(events=users, num_candidates=NUM_CANDIDATES)
    answers = embed_part(taste.part(decay=1.0), candidates, histories)
    # The ridge shrinks the map by about a hundredth.
    np.testing.assert_allclose(answers, queries, atol=0.05 * np.abs(queries).max())


@pytest.mark.parametrize("num_users", [60, 25], ids=["by candidates", "by rows"])
def test_linear_model_in_all_directions_is_ease(users: Pairs, num_users: int) -> None:
    some = pairs(rows(users)[:num_users])
    histories = Histories(events=some, num_candidates=NUM_CANDIDATES)
    linear = Linear.fit(some, num_candidates=NUM_CANDIDATES, dimension=NUM_CANDIDATES)
    assert linear is not None
    part = linear.part(slice(0, len(linear.gains)), decay=1.0, scale=2.0, factor=3.0)
    queries = embed_part(part, linear.candidates * 2, histories)
    scores: npt.NDArray[np.float32] = queries @ (linear.candidates * 2).T
    expected = 3 * fit_ease(histories, {"lambda": 400.0})(histories, {})
    unseen = histories.matrix().toarray() == 0
    np.testing.assert_allclose(scores[unseen], expected[unseen], atol=1e-4)


def test_linear_model_keeps_the_best_directions(users: Pairs) -> None:
    linear = Linear.fit(users, num_candidates=NUM_CANDIDATES, dimension=8)
    every = Linear.fit(users, num_candidates=NUM_CANDIDATES, dimension=NUM_CANDIDATES)
    assert linear is not None
    assert every is not None
    np.testing.assert_allclose(np.sort(linear.gains), np.sort(every.gains)[-8:], rtol=1e-4)
