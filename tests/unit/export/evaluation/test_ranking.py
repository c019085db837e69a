"""Exact ranks and metrics compared with plain loops."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import held_out_questions
from shortlist.export.data.split import Split
from shortlist.export.evaluation.metrics import (
    activity_buckets,
    at_k,
    bootstrap,
    breadth,
    popularity_bands,
    user_gains,
)
from shortlist.export.evaluation.ranking import (
    Ranking,
    rank_answers,
    rank_in_one_order,
)
from tests.support.evaluation import UserScores, inner_products, scorer_of


def make_dataset(users: list[int], candidates: list[int], num_candidates: int) -> Dataset:
    return Dataset(
        name="synthetic",
        user_ids=tuple(str(user) for user in range(max(users) + 1)),
        candidate_ids=tuple(str(candidate) for candidate in range(num_candidates)),
        titles=tuple(str(candidate) for candidate in range(num_candidates)),
        user_positions=np.asarray(users, np.int32),
        candidate_positions=np.asarray(candidates, np.int32),
    )


def rank(scores: UserScores, dataset: Dataset, split: Split, top_k: int) -> Ranking:
    questions = held_out_questions(dataset, split)
    return rank_answers(scorer_of(scores, questions), questions, top_k=top_k)


def plain_list(scores: list[float], hidden: set[int]) -> list[int]:
    """All candidates that are not hidden, best first, equal scores by position."""
    places = [place for place in range(len(scores)) if place not in hidden]
    return sorted(places, key=lambda place: (-scores[place], place))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Dataset, Split, npt.NDArray[np.float32], int]:
    num_users, num_candidates = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    cell = st.tuples(st.integers(0, num_users - 1), st.integers(0, num_candidates - 1))
    rows = draw(st.lists(cell, min_size=2, max_size=30))
    held_out = draw(st.integers(1, len(rows) - 1))
    order = np.asarray(draw(st.permutations(range(len(rows)))))
    # Few distinct scores, so that there are many ties.
    scores = draw(
        st.lists(
            st.lists(st.integers(0, 3), min_size=num_candidates, max_size=num_candidates),
            min_size=num_users,
            max_size=num_users,
        )
    )
    dataset = make_dataset(
        [row[0] for row in rows] + [num_users - 1], [row[1] for row in rows] + [0], num_candidates
    )
    split = Split(training=np.sort(order[held_out:]), held_out=np.sort(order[:held_out]))
    return dataset, split, np.asarray(scores, np.float32), draw(st.integers(1, 12))


@settings(deadline=None, max_examples=300)
@given(problems(), st.sampled_from([1, 10_000]))
def test_ranks_equal_a_plain_sort_with_ties_and_exclusions(
    problem: tuple[Dataset, Split, npt.NDArray[np.float32], int], cells_per_batch: int
) -> None:
    dataset, split, scores, top_k = problem
    questions = held_out_questions(dataset, split)
    ranking = rank_answers(
        lambda rows: scores[questions.users[rows]].copy(),
        questions,
        top_k=top_k,
        scores_per_batch=cells_per_batch,
    )
    top_k = min(top_k, len(dataset.candidate_ids))
    users, candidates = dataset.user_positions, dataset.candidate_positions
    for protocol in ("seen_kept", "seen_excluded"):
        for row, held_out in enumerate(questions.interactions):
            user, own = int(users[held_out]), int(candidates[held_out])
            seen = {int(candidates[t]) for t in split.training if users[t] == user}
            answer = plain_list(
                scores[user].tolist(), seen if protocol == "seen_excluded" else set()
            )[:top_k]
            expected = answer.index(own) if own in answer else top_k
            assert ranking.places[protocol][row] == expected
            assert questions.repeats[row] == (own in seen)
            judged = int(questions.owners[row])
            assert questions.users[judged] == user
            shown = [c for c in ranking.top[protocol][judged].tolist() if c >= 0]
            assert shown == answer


@settings(deadline=None, max_examples=300)
@given(problems(), st.sampled_from([1, 10_000]))
def test_one_order_for_all_ranks_as_scoring_does(
    problem: tuple[Dataset, Split, npt.NDArray[np.float32], int], cells_per_batch: int
) -> None:
    dataset, split, scores, top_k = problem
    same = np.repeat(scores[:1], len(scores), axis=0)
    questions = held_out_questions(dataset, split)
    expected = rank_answers(lambda rows: same[rows], questions, top_k=top_k)
    order = np.argsort(-same[0], kind="stable")
    ranking = rank_in_one_order(order, questions, top_k=top_k, cells_per_batch=cells_per_batch)
    for protocol in ("seen_kept", "seen_excluded"):
        np.testing.assert_array_equal(ranking.places[protocol], expected.places[protocol])
        np.testing.assert_array_equal(ranking.top[protocol], expected.top[protocol])


def test_popularity_bands_are_shares_of_what_is_recommended() -> None:
    popularity = np.arange(100)[::-1]  # candidate 0 is the most popular
    one_of_each = np.array([[0, 4, 19, 99], [-1, -1, -1, -1]], np.int32)
    assert popularity_bands(one_of_each, popularity) == [0.25, 0.25, 0.25, 0.25]
    next_ones = np.array([1, 5, 20, 20], np.int32)
    assert popularity_bands(next_ones, popularity) == [0.0, 0.25, 0.25, 0.5]


@given(st.lists(st.integers(0, 20), min_size=1), st.integers(1, 20))
def test_metrics_equal_their_definitions(ranks: list[int], k: int) -> None:
    values = at_k(np.asarray(ranks), [k])
    hits = [rank for rank in ranks if rank < k]
    assert values[f"hit_rate@{k}"] == pytest.approx(len(hits) / len(ranks))
    assert values[f"ndcg@{k}"] == pytest.approx(
        math.fsum(1 / math.log2(rank + 2) for rank in hits) / len(ranks)
    )
    assert values[f"mrr@{k}"] == pytest.approx(
        math.fsum(1 / (rank + 1) for rank in hits) / len(ranks)
    )


def test_interactions_count_by_their_weights() -> None:
    weights = np.array([3.0, 0.5, 0.5], np.float32)
    values = at_k(np.array([0, 10, 10]), [10], weights)
    assert values["hit_rate@10"] == values["mrr@10"] == pytest.approx(0.75)


@pytest.fixture
def judged() -> tuple[Dataset, Split, UserScores]:
    """40 users with 3 to 30 interactions and random embeddings."""
    random = np.random.default_rng(3)
    users = np.repeat(np.arange(40), random.integers(3, 30, 40))
    dataset = make_dataset(users.tolist(), random.integers(0, 50, len(users)).tolist(), 50)
    held_out = random.random(len(users)) < 0.3
    split = Split(training=np.flatnonzero(~held_out), held_out=np.flatnonzero(held_out))
    queries, candidates = random.normal(size=(40, 4)), random.normal(size=(50, 4))
    return dataset, split, inner_products(queries, candidates)


def test_bootstrap_interval_holds_the_metric_and_is_repeatable(
    judged: tuple[Dataset, Split, UserScores],
) -> None:
    dataset, split, scorer = judged
    ranking = rank(scorer, dataset, split, top_k=10)
    intervals = bootstrap(ranking, "seen_kept", [10], resamples=500, seed=1)
    value = at_k(ranking.ranks["seen_kept"], [10])["hit_rate@10"]
    interval = intervals["hit_rate@10"]
    assert interval.low < value < interval.high
    # The binomial interval is a lower bound of about 1.96 * sqrt(p q / n) to either side.
    width = 2 * 1.96 * math.sqrt(value * (1 - value) / len(split.held_out))
    assert 0.5 * width < interval.high - interval.low < 2 * width
    assert bootstrap(ranking, "seen_kept", [10], resamples=500, seed=1) == intervals


def test_bootstrap_of_groups_is_as_wide_as_that_of_users() -> None:
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(3000), random.integers(1, 20, 3000))
    # Some users are easier than others, so their interactions depend on each other.
    ranks = random.geometric(random.uniform(0.02, 0.3, 3000)[users])
    data = make_dataset(users.tolist(), [0] * len(users), 1)
    split = Split(training=np.empty(0, np.int64), held_out=np.arange(len(users)))
    ranking = Ranking(
        questions=held_out_questions(data, split),
        top_k=10,
        places={"seen_kept": np.minimum(ranks, 10)},
        top={"seen_kept": np.zeros((3000, 10), np.int32)},
    )
    widths = []
    for most in (3000, 400):
        intervals = bootstrap(ranking, "seen_kept", [5], resamples=2000, most_units=most)
        interval = intervals["ndcg@5"]
        assert interval.low < at_k(ranking.ranks["seen_kept"], [5])["ndcg@5"] < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.12)


def test_activity_buckets_part_the_users_and_add_up(
    judged: tuple[Dataset, Split, UserScores],
) -> None:
    dataset, split, scorer = judged
    ranking = rank(scorer, dataset, split, top_k=10)
    buckets = activity_buckets(ranking, [10])
    assert len(buckets) == 4
    assert sum(bucket.num_users for bucket in buckets) == len(ranking.questions)
    assert sum(bucket.num_held_out for bucket in buckets) == len(split.held_out)
    for less, more in itertools.pairwise(buckets):
        assert less.most < more.fewest
    mean = sum(
        (bucket.num_held_out - bucket.num_repeats) * bucket.metrics["seen_excluded"]["hit_rate@10"]
        for bucket in buckets
    ) / np.count_nonzero(~ranking.questions.repeats)
    whole = at_k(ranking.ranks["seen_excluded"], [10])["hit_rate@10"]
    assert mean == pytest.approx(whole)


def test_users_of_one_activity_share_a_bucket() -> None:
    dataset = make_dataset([0, 0, 1, 1], [0, 1, 0, 1], 2)
    split = Split(training=np.array([0, 2]), held_out=np.array([1, 3]))
    ranking = rank(lambda users: np.zeros((len(users), 2)), dataset, split, top_k=2)
    buckets = activity_buckets(ranking, [1])
    assert [(bucket.num_users, bucket.fewest, bucket.most) for bucket in buckets] == [(2, 1, 1)]


def test_popular_answers_cover_little_and_are_lifted() -> None:
    dataset = make_dataset([0, 1, 2, 0, 1, 2, 0, 1], [0, 0, 0, 1, 2, 3, 4, 5], 6)
    split = Split(training=np.arange(6), held_out=np.array([6, 7]))
    popularity = np.bincount(dataset.candidate_positions[:6], minlength=6)
    scores = np.repeat(popularity[None].astype(np.float32), 3, axis=0)
    ranking = rank(lambda users: scores[users], dataset, split, top_k=1)
    values = breadth(ranking, "seen_kept", popularity, [1])
    # Both users get candidate 0; no user had candidates 4 and 5 before.
    assert values == {"coverage@1": 1 / 6}
    excluded = breadth(ranking, "seen_excluded", popularity, [1])
    assert excluded == {"coverage@1": 2 / 6}


def new_users(held_out: list[list[int]], places: list[list[int]], top_k: int) -> Ranking:
    """Users without a history, with the places of their held-out candidates."""
    users = [user for user, row in enumerate(held_out) for _ in row]
    dataset = make_dataset(users, [candidate for row in held_out for candidate in row], 200)
    split = Split(
        method="new_users", training=np.empty(0, np.int64), held_out=np.arange(len(users))
    )
    ranks = np.minimum([place for row in places for place in row], top_k)
    return Ranking(
        questions=held_out_questions(dataset, split),
        top_k=top_k,
        places={"seen_kept": ranks, "seen_excluded": ranks},
        top={},
    )


def test_metrics_of_users_are_those_of_the_literature() -> None:
    """A user counts once, and at most k of the user's candidates can be in the top k."""
    many = list(range(150))
    ranking = new_users([[7], [1, 2, 3], many], [[3], [25, 0, 60], many], top_k=100)
    gains = user_gains(ranking, "seen_kept")
    assert list(gains) == ["user_ndcg@100", "user_recall@20", "user_recall@50"]
    discount = [1 / math.log2(place + 2) for place in range(100)]
    np.testing.assert_allclose(
        gains["user_ndcg@100"],
        [discount[3], (discount[25] + discount[0] + discount[60]) / sum(discount[:3]), 1.0],
    )
    np.testing.assert_allclose(gains["user_recall@20"], [1, 1 / 3, 1])
    np.testing.assert_allclose(gains["user_recall@50"], [1, 2 / 3, 1])
    intervals = bootstrap(ranking, "seen_kept", [10], resamples=200, per_user=gains)
    interval = intervals["user_recall@20"]
    assert interval.low == pytest.approx(1 / 3)
    assert interval.high == pytest.approx(1.0)


def test_a_candidate_held_out_twice_counts_once_for_its_user() -> None:
    gains = user_gains(new_users([[5, 5, 6]], [[0, 0, 99]], top_k=50), "seen_excluded")
    assert {name: gain.tolist() for name, gain in gains.items()} == {
        "user_recall@20": [0.5],
        "user_recall@50": [0.5],
    }


@pytest.mark.parametrize("num_candidates", [300, 1001])
def test_long_lists_equal_a_plain_sort_however_scores_are_spread(num_candidates: int) -> None:
    """Best scores that are together, or all the same, are found like others."""
    random = np.random.default_rng(4)
    rows = np.arange(num_candidates)
    scores = np.stack(
        [
            random.normal(size=num_candidates),
            rows,
            -rows,
            np.zeros(num_candidates),
            np.where(rows % 97 == 0, 1.0, 0.0),
            random.integers(0, 3, num_candidates),
        ]
    ).astype(np.float32)
    users = [user for user in range(len(scores)) for _ in range(3)]
    dataset = make_dataset(users, [0, 7, num_candidates - 1] * len(scores), num_candidates)
    split = Split(training=np.arange(1, len(users), 3), held_out=np.arange(0, len(users), 3))
    for top_k in (1, 20, 100):
        ranking = rank(lambda users: scores[users].copy(), dataset, split, top_k=top_k)
        for user in range(len(scores)):
            kept = plain_list(scores[user].tolist(), set())[:top_k]
            assert ranking.top["seen_kept"][user].tolist() == kept
            excluded = plain_list(scores[user].tolist(), {7})[:top_k]
            assert ranking.top["seen_excluded"][user].tolist() == excluded
