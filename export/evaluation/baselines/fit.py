"""Fits baselines with the settings that are best on the validation part."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.questions import Questions, validation_questions
from shortlist.export.data.split import Split
from shortlist.export.evaluation.baselines.ease import fit_ease
from shortlist.export.evaluation.baselines.ials import fit_ials
from shortlist.export.evaluation.baselines.item_knn import fit_item_knn
from shortlist.export.evaluation.baselines.popularity import fit_popularity, fit_recent_popularity
from shortlist.export.evaluation.baselines.transitions import fit_transitions
from shortlist.export.evaluation.baselines.types import Fit, Score, Settings
from shortlist.export.evaluation.metrics import at_k
from shortlist.export.evaluation.ranking import Ranking, rank_answers, rank_in_one_order

__all__ = ["BASELINES", "Baseline", "Kind", "fit_baseline", "fit_best"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of baseline, and the values of its settings to choose from.

    Attributes:
        fit: Fits it to histories.
        fits: Values of the settings of `fit`, by name.
        scorings: Values of the settings of the scores, by name.
        needs_times: Whether it needs data with times.
        same_for_all: Whether it scores all histories the same.
    """

    fit: Fit
    fits: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scorings: Mapping[str, Sequence[float]] = field(default_factory=dict)
    needs_times: bool = False
    same_for_all: bool = False

    @property
    def axes(self) -> Mapping[str, Sequence[float]]:
        """Values of all settings by name, those of `fit` first."""
        return {**self.fits, **self.scorings}


@dataclass(frozen=True, kw_only=True, eq=False)
class Baseline:
    """A fitted baseline.

    Equal scores rank by popularity in the fitted part. So does the whole corpus for a history
    without a candidate of that part, such as an unknown user's: its scores are all zero.

    Attributes:
        name: One of `BASELINES`.
        settings: Settings chosen on the validation part.
        score: Scores of any histories: float64 `[num_histories, num_candidates]`.
        same_for_all: Whether all histories have the same scores.
    """

    name: str
    settings: Settings
    score: Callable[[Histories], npt.NDArray[np.float64]]
    same_for_all: bool = False

    def rank(self, questions: Questions, *, top_k: int) -> Ranking:
        """Rank the judged candidates of questions by the histories before them."""
        if not self.same_for_all:
            return rank_answers(
                lambda rows: self.score(questions.take(rows).histories), questions, top_k=top_k
            )
        scores = self.score(questions.take(np.arange(1)).histories)[0]
        return rank_in_one_order(np.argsort(-scores, kind="stable"), questions, top_k=top_k)


_MOST_QUESTIONS = 5000  # of the validation part, to choose settings by: more change little

_LAMBDAS = (20, 50, 100, 200, 500, 1000)

BASELINES: Mapping[str, Kind] = {
    "popularity": Kind(fit=fit_popularity, same_for_all=True),
    "recent_popularity": Kind(
        fit=fit_recent_popularity,
        fits={"half_life_days": (1, 7, 30, 90, 365, 1000, 100_000)},
        needs_times=True,
        same_for_all=True,
    ),
    "item_knn": Kind(
        fit=fit_item_knn,
        fits={"shrinkage": (0, 5, 20, 100)},
        scorings={"neighbors": (10, 20, 50, 100, 200)},
    ),
    "ease": Kind(fit=fit_ease, fits={"lambda": _LAMBDAS}),
    "decayed_ease": Kind(
        fit=fit_ease,
        fits={"lambda": _LAMBDAS},
        scorings={"half_life": (1, 2, 5, 10, 20, 50, 100, 1000, 10_000)},
        needs_times=True,
    ),
    "transitions": Kind(
        fit=fit_transitions,
        fits={"window": (1, 2, 5, 10, 20)},
        scorings={"half_life": (0.5, 1, 2, 5, 20, 100), "smoothing": (1, 10, 100, 1000)},
        needs_times=True,
    ),
    "ials": Kind(
        fit=fit_ials,
        fits={
            "regularization": (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01),
            "alpha": (0.01, 0.03, 0.1, 0.3, 1.0),
            "dimension": (16, 64, 128, 256),
        },
    ),
}


def fit_baseline(name: str, dataset: Dataset, split: Split, *, seed: int = 0) -> Baseline:
    """Fit a baseline to the fitted part; see `fit_best` for its settings.

    Args:
        name: One of `BASELINES`.
        dataset: Interactions that `split` refers to.
        split: Parts of the interactions.
        seed: Random seed of the initial values.

    Raises:
        ValueError: The name is unknown, the baseline needs times and the data has none, or there
            are too many users and candidates for EASE.
        ModuleNotFoundError: `shortlist[baselines]` is not installed.
    """
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
    if BASELINES[name].needs_times and dataset.timestamps is None:
        raise ValueError(
            f"times are needed, and {dataset.name} has none; name their column with "
            "--timestamp-column"
        )
    try:
        return fit_best(name, BASELINES[name], dataset, split, seed=seed)
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(
            f"the package {exc.name} is missing; install shortlist[baselines]", name=exc.name
        ) from exc


def fit_best(name: str, kind: Kind, dataset: Dataset, split: Split, *, seed: int) -> Baseline:
    """Fit a baseline with the settings that give the best hit rate@10 on the validation part.

    Seen candidates are excluded, and hit rate@100 decides between equal rates. The search starts
    in the middle and changes one setting at a time, to its best value, until none improves.
    Of many questions, a sample decides. Without a validation part, the middle is used.
    """
    settings = {key: values[len(values) // 2] for key, values in kind.axes.items()}
    if settings and len(split.validation):
        settings = _best_settings(name, kind, dataset, split, seed)
    fitted = Histories.of_users(dataset, split.fitted)
    return _baseline(name, kind, kind.fit(fitted, {**settings, "seed": seed}), settings, fitted)


def _best_settings(
    name: str, kind: Kind, dataset: Dataset, split: Split, seed: int
) -> dict[str, float]:
    training = Histories.of_users(dataset, split.training)
    questions = validation_questions(dataset, split, most=_MOST_QUESTIONS)

    @functools.lru_cache(maxsize=1)
    def fit(values: tuple[float, ...]) -> Score:
        return kind.fit(training, {**dict(zip(kind.fits, values, strict=True)), "seed": seed})

    @functools.cache
    def rates(values: tuple[float, ...]) -> tuple[float, float]:
        settings = dict(zip(kind.axes, values, strict=True))
        baseline = _baseline(name, kind, fit(values[: len(kind.fits)]), settings, training)
        ranking = baseline.rank(questions, top_k=100)
        at = at_k(ranking.ranks["seen_excluded"], [10, 100], ranking.weights("seen_excluded"))
        log.info("%s with %s: validation hit rate@10 %.4f", name, settings, at["hit_rate@10"])
        return at["hit_rate@10"], at["hit_rate@100"]

    best, before = tuple(values[len(values) // 2] for values in kind.axes.values()), None
    while best != before:
        before = best
        for place, values in enumerate(kind.axes.values()):
            best = max(((*best[:place], v, *best[place + 1 :]) for v in values), key=rates)
    return dict(zip(kind.axes, best, strict=True))


def _baseline(
    name: str, kind: Kind, score: Score, settings: Settings, training: Histories
) -> Baseline:
    """Break the ties of a fit's scores by popularity, and those of equal counts by position."""
    counts = training.counts()
    places = np.empty(len(counts))
    places[np.argsort(-counts, kind="stable")] = np.arange(len(counts), 0, -1) / len(counts)

    def complete(histories: Histories) -> npt.NDArray[np.float64]:
        scores = score(histories, settings).astype(np.float64)
        # Less than the distance to the next float32, so that only equal scores change places.
        scores += (np.abs(scores) * 2.0**-25 + 2.0**-151) * places
        return scores

    return Baseline(name=name, settings=settings, score=complete, same_for_all=kind.same_for_all)
