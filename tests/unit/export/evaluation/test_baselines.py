"""Baselines against their definitions, and their choice of settings."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation import baselines as module
from shortlist.export.evaluation.baselines import fit_baseline, fit_best
from shortlist.export.evaluation.evaluate import evaluate
from shortlist.export.evaluation.ranking import Scorer


def dense(data: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    matrix = np.zeros((len(data.user_ids), len(data.candidate_ids)))
    matrix[data.user_positions[rows], data.candidate_positions[rows]] = 1
    return matrix


@pytest.mark.parametrize("num_candidates", [150, 500])
def test_ease_equals_its_closed_form_whichever_side_is_larger(
    data: Dataset, split: Split, num_candidates: int
) -> None:
    """Both ways to compute the scores, by users and by candidates, agree."""
    rows = split.training[data.candidate_positions[split.training] < num_candidates]
    narrow = Dataset(
        name="narrow",
        user_ids=data.user_ids,
        candidate_ids=data.candidate_ids[:num_candidates],
        titles=data.titles[:num_candidates],
        user_positions=data.user_positions,
        candidate_positions=data.candidate_positions,
    )
    matrix = dense(data, rows)[:, :num_candidates]
    inverse = np.linalg.inv(matrix.T @ matrix + 50.0 * np.eye(num_candidates))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scorer = module._ease(narrow, rows, {"lambda": 50.0})
    users = np.array([3, 0, 299], np.int32)
    np.testing.assert_allclose(scorer(users), (matrix @ weights)[users], atol=1e-4)


def test_popularity_counts_interactions(data: Dataset, split: Split) -> None:
    scores = fit_baseline("popularity", data, split).scorer(np.array([0, 5], np.int32))
    counts = np.bincount(data.candidate_positions[split.fitted], minlength=500)
    np.testing.assert_array_equal(scores, np.stack([counts, counts]))


@pytest.mark.parametrize("name", ["ease", "ials"])
def test_learned_baseline_beats_popularity(data: Dataset, split: Split, name: str) -> None:
    if name == "ials":
        pytest.importorskip("implicit", reason="iALS needs shortlist[baselines]")
    rates = {
        baseline: evaluate(fit_baseline(baseline, data, split).scorer, data, split, ks=[10]).metrics
        for baseline in ("popularity", name)
    }
    popular, learned = (metrics["seen_excluded"]["hit_rate@10"] for metrics in rates.values())
    assert learned > 1.2 * popular


def test_settings_are_chosen_on_the_validation_part(data: Dataset, split: Split) -> None:
    """A setting that ruins the scores is rejected without using the held-out part."""
    asked = []

    def fit(dataset: Dataset, rows: npt.NDArray[np.int64], settings: Mapping[str, float]) -> Scorer:
        asked.append(len(rows))
        sign = np.float32(settings["sign"])
        counts = np.bincount(dataset.candidate_positions[rows], minlength=500) * sign
        return lambda users: np.repeat(counts[None], len(users), axis=0)

    choices = ({"sign": -1.0}, {"sign": 1.0}, {"sign": 0.0})
    baseline = fit_best("signed", fit, choices, data, split, seed=0)
    assert baseline.settings == {"sign": 1.0}
    assert asked == [len(split.training)] * 3 + [len(split.fitted)]


def test_ease_refuses_a_matrix_that_is_too_large() -> None:
    ids = tuple(str(number) for number in range(20_001))
    positions = np.arange(10, dtype=np.int32)
    data = Dataset(
        name="wide",
        user_ids=ids,
        candidate_ids=ids,
        titles=ids,
        user_positions=positions,
        candidate_positions=positions,
    )
    split = make_split(data, held_out_fraction=0.2, seed=1)
    with pytest.raises(ValueError, match="a 20001 x 20001 matrix, and 20000 is its limit; use"):
        fit_baseline("ease", data, split)


def test_unknown_baseline_is_refused(data: Dataset, split: Split) -> None:
    with pytest.raises(ValueError, match="unknown baseline 'knn'; choose from popularity, ease"):
        fit_baseline("knn", data, split)
