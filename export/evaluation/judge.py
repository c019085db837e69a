"""Measures trained models and baselines on the held-out part."""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import Questions, held_out_questions
from shortlist.export.data.split import Split
from shortlist.export.evaluation.baselines import fit_baseline
from shortlist.export.evaluation.evaluate import (
    KS,
    Evaluation,
    evaluate,
    evaluate_ranking,
    rating_quality,
)
from shortlist.export.evaluation.ranking import Scorer
from shortlist.export.evaluation.similar import similar_quality
from shortlist.export.towers.trained import TrainedModel

__all__ = ["Judged", "judge_baseline", "judge_baselines", "judge_model", "model_scorer"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model or baseline with its metrics.

    Attributes:
        name: Name in reports and tables.
        evaluation: Metrics; None if they could not be measured.
        problem: Reason for that.
    """

    name: str
    evaluation: Evaluation | None
    problem: str = ""


def model_scorer(model: TrainedModel, questions: Questions) -> Scorer:
    """Scores of a model's answers to questions."""
    candidates = model.candidate_embeddings.T

    def score(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        asked = questions.take(rows)
        return model.embed(asked.askers, asked.histories) @ candidates

    return score


def judge_model(
    model: TrainedModel,
    dataset: Dataset,
    split: Split,
    *,
    ks: Sequence[int] = KS,
    resamples: int = 0,
) -> Evaluation:
    """Exact metrics of the towers, the rating head and `similar` by co-interactions.

    Raises:
        ValueError: Nothing is held out.
    """
    questions = held_out_questions(dataset, split)
    evaluation = evaluate(
        model_scorer(model, questions),
        questions,
        dataset.candidate_counts(split.fitted),
        ks=ks,
        resamples=resamples,
        num_kept=dataset.user_counts(split.fitted),
    )
    if model.similar_queries is not None:
        similar = similar_quality(dataset, split, model.similar_queries, model.taste_embeddings)
        evaluation = dataclasses.replace(evaluation, similar=similar)
    if model.rating_head is None:
        return evaluation
    predicted = model.rating_head.predict(
        dataset.user_positions[split.held_out],
        dataset.candidate_positions[split.held_out],
        model.embed_users(np.arange(len(dataset.user_ids)))[:, : model.taste_dimension],
        model.taste_embeddings,
    )
    return dataclasses.replace(evaluation, rating=rating_quality(predicted, dataset, split))


def judge_baseline(
    dataset: Dataset,
    split: Split,
    name: str,
    *,
    seed: int,
    ks: Sequence[int] = KS,
    resamples: int = 0,
) -> Evaluation:
    """Fit a baseline and return its settings, and its metrics on the held-out part."""
    questions = held_out_questions(dataset, split)
    popularity = dataset.candidate_counts(split.fitted)
    fitted = fit_baseline(name, dataset, split, seed=seed)
    ranking = fitted.rank(questions, top_k=max(k for k in ks if k <= len(popularity)))
    evaluation = evaluate_ranking(ranking, popularity, ks=ks, resamples=resamples)
    return dataclasses.replace(evaluation, settings=fitted.settings)


def judge_baselines(
    dataset: Dataset,
    split: Split,
    names: Sequence[str],
    *,
    seed: int,
    ks: Sequence[int] = KS,
    resamples: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Judged]:
    """Judge several baselines; `progress` is called before and after each.

    For a baseline that is not installed, too large for the data, or needs times that the data
    does not have, the result holds the reason instead of metrics.
    """
    judged = []
    for name in names:
        progress(f"fitting {name}")
        start = time.monotonic()
        try:
            evaluation = judge_baseline(dataset, split, name, seed=seed, ks=ks, resamples=resamples)
        except (ValueError, ModuleNotFoundError) as exc:
            log.info("skipping %s: %s", name, exc)
            judged.append(Judged(name=name, evaluation=None, problem=str(exc)))
        else:
            settings = ", ".join(f"{key} {value:g}" for key, value in evaluation.settings.items())
            progress(f"{name}: {settings or 'no settings'} ({time.monotonic() - start:.1f} s)")
            judged.append(Judged(name=name, evaluation=evaluation))
    return judged
