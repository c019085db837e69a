"""Baselines against their definitions, and their choice of settings."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export import config
from shortlist.export.config import SplitMethod
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.questions import held_out_questions
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.baselines import (
    BASELINES,
    Baseline,
    Kind,
    fit,
    fit_baseline,
    fit_best,
)
from shortlist.export.evaluation.baselines.ease import fit_ease
from shortlist.export.evaluation.baselines.ials import fit_ials, solve_rows
from shortlist.export.evaluation.baselines.item_knn import fit_item_knn
from shortlist.export.evaluation.baselines.popularity import fit_recent_popularity
from shortlist.export.evaluation.baselines.transitions import fit_transitions
from shortlist.export.evaluation.baselines.types import Score, Settings
from shortlist.export.evaluation.evaluate import Evaluation, evaluate_ranking
from shortlist.export.evaluation.ranking import rank_in_one_order
from tests.support.evaluation import evaluate_popularity
from tests.support.histories import histories

PERSONAL = tuple(name for name in BASELINES if not name.endswith("popularity"))


def some_histories(num_users: int, num_candidates: int, seed: int) -> Histories:
    """Between 0 and 12 events of each user, the first candidates more often, some of them twice."""
    random = np.random.default_rng(seed)
    rows = [
        (num_candidates * random.random(random.integers(0, 13)) ** 2).astype(int).tolist()
        for _ in range(num_users)
    ]
    return histories(rows, num_candidates)


def dense(of: Histories) -> npt.NDArray[np.float64]:
    matrix = np.zeros((of.events.num_rows, of.num_candidates))
    matrix[of.owners, of.events.columns] = 1
    return matrix


# --- the models -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_candidates", [30, 90], ids=["candidates inverted", "users inverted"])
def test_ease_equals_its_closed_form_for_any_histories(num_candidates: int) -> None:
    """Both ways agree, by users and by candidates, also for histories that are not in X."""
    training, foreign = (some_histories(60, num_candidates, seed) for seed in (1, 2))
    matrix = dense(training)
    inverse = np.linalg.inv(matrix.T @ matrix + 5.0 * np.eye(num_candidates))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    score = fit_ease(training, {"lambda": 5.0})
    for asked in (training, foreign):
        np.testing.assert_allclose(score(asked, {}), dense(asked) @ weights, atol=1e-5)
        decayed = asked.matrix(half_life=3).toarray()
        np.testing.assert_allclose(score(asked, {"half_life": 3}), decayed @ weights, atol=1e-5)


def test_ease_refuses_a_matrix_that_is_too_large() -> None:
    with pytest.raises(ValueError, match="a 20001 x 20001 matrix, and 20000 is its limit; use"):
        fit_ease(histories([[0]] * 20_001, 20_001), {"lambda": 1.0})


@pytest.mark.parametrize("dimension", [4, 64], ids=["few dimensions", "many dimensions"])
def test_half_step_solves_the_normal_equations(dimension: int) -> None:
    """Rows with fewer columns than dimensions and others are solved in different ways."""
    of = some_histories(50, 40, seed=3)
    rows = of.distinct()
    factors = np.random.default_rng(4).normal(0, 0.5, (40, dimension)).astype(np.float32)
    expected = np.zeros((50, dimension))
    for row in range(50):
        own = factors[rows.of(row)].astype(np.float64)
        system = own.T @ own + 0.3 * factors.T @ factors
        system += 0.05 * (len(own) + 0.3 * 40) * np.eye(dimension)
        expected[row] = np.linalg.solve(system, own.sum(axis=0))
    solved = solve_rows(rows, factors, alpha=0.3, regularization=0.05)
    np.testing.assert_allclose(solved, expected, atol=1e-4)


def test_ials_scores_histories_by_its_half_step_and_ends_near_a_minimum() -> None:
    """After the last half-step for the candidates, one for the users hardly moves them."""
    training = some_histories(60, 40, seed=5)
    settings = {"dimension": 8, "alpha": 0.3, "regularization": 0.006, "seed": 1}
    score = fit_ials(training, settings)
    scores = score(training, {})
    own = dense(training) > 0
    assert scores[own].mean() > 0.5 > 5 * scores[~own].mean()
    np.testing.assert_allclose(
        scores[::7], score(training.take(np.arange(0, 60, 7)), {}), atol=1e-6
    )
    np.testing.assert_array_equal(scores, fit_ials(training, settings)(training, {}))


def test_item_knn_sums_shrunk_cosines_of_the_nearest() -> None:
    training = histories([[0, 1], [0, 1, 2], [0, 2, 3], [3]], 5)
    score = fit_item_knn(training, {"shrinkage": 1.0})
    between_0_1, between_0_2 = 2 / (np.sqrt(3 * 2) + 1), 2 / (np.sqrt(3 * 2) + 1)
    between_1_2, between_2_3 = 1 / (2 + 1), 1 / (2 + 1)
    asked = histories([[1, 2], [4], []], 5)
    expected = [between_0_1 + between_0_2, between_1_2, between_1_2, between_2_3, 0]
    scores = score(asked, {"neighbors": 4})
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)
    assert not scores[1:].any()
    nearest = score(asked, {"neighbors": 1})
    np.testing.assert_allclose(nearest[0], [between_0_1 + between_0_2, 0, 0, 0, 0], rtol=1e-6)


def test_transitions_count_what_follows_and_back_off_to_popularity() -> None:
    training = histories([[0, 1, 2], [1, 2], [3]], 4)
    score = fit_transitions(training, {"window": 2})
    # After 0: 1 directly, 2 at distance 2; after 1: 2 twice; after 2 and 3 nothing.
    shares = np.array([1, 2, 2, 1]) / 6
    after_0 = (np.array([0, 1, 0.5, 0]) + 3 * shares) / (1.5 + 3)
    after_1 = (np.array([0, 0, 2, 0]) + 3 * shares) / (2 + 3)
    scores = score(histories([[0, 1], [3], []], 4), {"half_life": 1.0, "smoothing": 3.0})
    np.testing.assert_allclose(scores[0], 0.5 * after_0 + after_1, rtol=1e-6)
    np.testing.assert_allclose(scores[1], shares, rtol=1e-6)
    assert not scores[2].any()


def test_recent_popularity_halves_by_age() -> None:
    day = 86_400
    training = histories([[0, 1], [1, 2]], 4, times=[0, 2 * day, 4 * day, 4 * day])
    scores = fit_recent_popularity(training, {"half_life_days": 2.0})(histories([[3], []], 4), {})
    np.testing.assert_allclose(scores, [[0.25, 1.5, 1.0, 0.0]] * 2)


# --- the rules for all ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_unknown(data: Dataset, split: Split) -> tuple[Dataset, Split]:
    """The data, of which users from 200 and candidates from 480 are only in the held-out part."""
    known = (data.user_positions < 200) & (data.candidate_positions < 480)
    return data, Split(
        training=split.training[known[split.training]],
        validation=split.validation[known[split.validation]],
        held_out=split.held_out,
    )


@pytest.mark.parametrize("name", PERSONAL)
def test_unknown_users_get_exactly_popularity(
    with_unknown: tuple[Dataset, Split], name: str
) -> None:
    data, split = with_unknown
    split = replace(split, validation=split.validation[:50])
    baseline = fit_best(name, _one(BASELINES[name]), data, split, seed=0)
    order = np.argsort(-data.candidate_counts(split.fitted), kind="stable")
    judged = split.held_out[data.user_positions[split.held_out] >= 200]
    questions = held_out_questions(data, replace(split, held_out=judged))
    ranking = baseline.rank(questions, top_k=100)
    popular = rank_in_one_order(order, questions, top_k=100)
    for protocol in ("seen_kept", "seen_excluded"):
        np.testing.assert_array_equal(ranking.top[protocol], popular.top[protocol])
        np.testing.assert_array_equal(ranking.ranks[protocol], popular.ranks[protocol])
    unknown_candidates = histories([[490, 480, 499]], len(data.candidate_ids))
    top = np.argsort(-baseline.score(unknown_candidates)[0], kind="stable")
    np.testing.assert_array_equal(top, order)


def _one(kind: Kind) -> Kind:
    """The kind with the last value of each setting as the only choice."""
    return replace(
        kind,
        fits={key: values[-1:] for key, values in kind.fits.items()},
        scorings={key: values[-1:] for key, values in kind.scorings.items()},
    )


def test_equal_scores_rank_by_popularity_and_others_keep_their_order(
    data: Dataset, split: Split
) -> None:
    values = np.array([1, 1, -1, 0, 0, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    row = np.resize(values, len(data.candidate_ids))

    def fit(training: Histories, settings: Settings) -> Score:
        return lambda asked, settings: np.repeat(row[None], asked.events.num_rows, axis=0)

    baseline = fit_best("fixed", Kind(fit=fit), data, split, seed=0)
    (scores,) = baseline.score(histories([[5]], len(row)))
    counts = data.candidate_counts(split.fitted)
    order = np.lexsort((np.arange(len(row)), -counts, -row))
    np.testing.assert_array_equal(np.argsort(-scores, kind="stable"), order)


def evaluate_baseline(
    baseline: Baseline, data: Dataset, split: Split, **options: Any
) -> Evaluation:
    ranking = baseline.rank(held_out_questions(data, split), top_k=100)
    return evaluate_ranking(ranking, data.candidate_counts(split.fitted), **options)


@pytest.mark.parametrize("name", ["popularity", "recent_popularity"])
def test_one_order_for_all_equals_scoring_each_history(
    data: Dataset, split: Split, name: str
) -> None:
    split = replace(split, validation=split.validation[:50])
    popular = fit_baseline(name, data, split)
    scored = replace(popular, same_for_all=False)
    assert evaluate_baseline(popular, data, split) == evaluate_baseline(scored, data, split)


def test_recent_counts_are_the_scores_of_recent_popularity(data: Dataset, split: Split) -> None:
    training = Histories.of_users(data, split.training)
    score = fit_recent_popularity(training, {"half_life_days": 365.0})
    counts = training.popularity(365.0)
    np.testing.assert_allclose(score(training.take(np.arange(1)), {})[0], counts, rtol=1e-6)
    assert counts.max() < data.candidate_counts(split.training).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ease", "ials", "item_knn"])
def test_learned_baseline_beats_popularity(data: Dataset, split: Split, name: str) -> None:
    kind = BASELINES[name]
    if name == "ials":
        kind = replace(kind, fits={**kind.fits, "dimension": (16,)})  # for speed
    baseline = fit_best(name, kind, data, split, seed=0)
    learned = evaluate_baseline(baseline, data, split, ks=[10]).metrics["seen_excluded"]
    popular = evaluate_popularity(data, split, ks=[10]).metrics["seen_excluded"]
    assert learned["hit_rate@10"] > 1.2 * popular["hit_rate@10"]


# --- settings -------------------------------------------------------------------------------


def test_settings_are_chosen_on_the_validation_part(data: Dataset, split: Split) -> None:
    """A setting that ruins the scores is rejected without using the held-out part."""
    asked = []

    def fit(training: Histories, settings: Settings) -> Score:
        asked.append(len(training.events.columns))
        counts = training.counts().astype(np.float32) * np.float32(settings["sign"])

        def score(histories: Histories, scoring: Settings) -> npt.NDArray[np.float32]:
            return np.repeat(counts[None] * scoring["factor"], histories.events.num_rows, axis=0)

        return score

    kind = Kind(
        fit=fit,
        fits={"sign": (-2.0, -1.0, 1.0)},
        scorings={"factor": (-1.0, 1.0)},
    )
    baseline = fit_best("signed", kind, data, split, seed=0)
    assert baseline.settings == {"sign": 1.0, "factor": 1.0}
    assert asked == [len(split.training)] * 3 + [len(split.fitted)]
    without = fit_best(
        "signed", kind, data, replace(split, validation=split.validation[:0]), seed=0
    )
    assert without.settings == {"sign": -1.0, "factor": 1.0}


def test_a_sample_of_questions_chooses_the_settings_of_large_data(
    data: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_MOST_QUESTIONS", 100)
    asked = []

    def make(training: Histories, settings: Settings) -> Score:
        def score(histories: Histories, scoring: Settings) -> npt.NDArray[np.float32]:
            asked.append(len(histories))
            return np.zeros((len(histories), len(data.candidate_ids)), np.float32)

        return score

    fit_best("zeros", Kind(fit=make, scorings={"any": (1.0,)}), data, split, seed=0)
    assert asked == [100]


@pytest.mark.parametrize("method", ["global_time", "new_users"])
def test_baselines_answer_from_the_history_in_the_request(
    data: Dataset, method: SplitMethod
) -> None:
    split = make_split(data, method=method, validation_fraction=0.1)
    kind = replace(BASELINES["ease"], fits={"lambda": (100,)})
    baseline = fit_best("ease", kind, data, split, seed=0)
    learned = evaluate_baseline(baseline, data, split, ks=[10])
    popular = evaluate_popularity(data, split, ks=[10])
    rates = [row.metrics["seen_excluded"]["hit_rate@10"] for row in (learned, popular)]
    assert rates[0] > 1.1 * rates[1]
    assert str(learned.headline("seen_excluded")).startswith(
        "hit_rate@10 (seen excluded, as served) "
    )
    assert "asked as served: each request carried what the user did" in str(learned.held_out)


def test_a_missing_package_is_named_with_its_remedy(
    data: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"threadpoolctl is missing; install shortlist\[base"
    ):
        fit_baseline("ials", data, split)


def test_command_line_knows_all_baselines() -> None:
    assert tuple(BASELINES) == config.BASELINES


def test_baselines_that_need_times_say_so(data: Dataset, split: Split) -> None:
    without = replace(data, timestamps=None)
    for name in ("recent_popularity", "decayed_ease", "transitions"):
        with pytest.raises(ValueError, match="times are needed, and sample has none; name their"):
            fit_baseline(name, without, split)


def test_unknown_baseline_is_refused(data: Dataset, split: Split) -> None:
    with pytest.raises(ValueError, match="unknown baseline 'knn'; choose from popularity, recent"):
        fit_baseline("knn", data, split)
