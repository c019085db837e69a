"""Evaluations by scores of users, whatever is asked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import Questions, held_out_questions
from shortlist.export.data.split import Split
from shortlist.export.evaluation.evaluate import Evaluation, evaluate
from shortlist.export.evaluation.judge import judge_baseline
from shortlist.export.evaluation.ranking import Scorer

__all__ = ["UserScores", "evaluate_popularity", "evaluate_users", "inner_products", "scorer_of"]

UserScores = Callable[[npt.NDArray[np.integer]], npt.NDArray[np.floating]]


def inner_products(
    queries: npt.NDArray[np.floating], candidates: npt.NDArray[np.floating]
) -> UserScores:
    """Return the scores of users by inner products `[num_users, d]` and `[num_candidates, d]`."""
    transposed = candidates.T.astype(np.float32)
    return lambda users: queries[users].astype(np.float32) @ transposed


def scorer_of(scores: UserScores, questions: Questions) -> Scorer:
    """Score the answers to questions as the user's."""
    return lambda rows: scores(questions.users[rows])


def evaluate_users(
    scores: UserScores, dataset: Dataset, split: Split, **options: Any
) -> Evaluation:
    """Evaluate the scores of users on the held-out part."""
    questions = held_out_questions(dataset, split)
    popularity = dataset.candidate_counts(split.fitted)
    return evaluate(scorer_of(scores, questions), questions, popularity, **options)


def evaluate_popularity(dataset: Dataset, split: Split, **options: Any) -> Evaluation:
    """Evaluate popularity on the held-out part."""
    return judge_baseline(dataset, split, "popularity", seed=0, **options)
