"""Judges a trained model on the held-out part: its order, and its ratings if it has any."""

import dataclasses

from export.data.dataset import Dataset
from export.evaluate import Evaluation, evaluate
from export.ranking import inner_product_scorer
from export.ratings import rating_quality
from export.split import Split
from export.trained import TrainedModel

__all__ = ["judge_model"]


def judge_model(
    model: TrainedModel, dataset: Dataset, split: Split, *, resamples: int = 0
) -> Evaluation:
    """Exact metrics of both towers, and the error of the rating head beside that of the means.

    Raises:
        ValueError: Nothing is held out.
    """
    scorer = inner_product_scorer(model.query_embeddings, model.candidate_embeddings)
    evaluation = evaluate(scorer, dataset, split, resamples=resamples)
    if model.rating_head is None:
        return evaluation
    predicted = model.rating_head.predict(
        dataset.user_positions[split.held_out],
        dataset.candidate_positions[split.held_out],
        model.query_embeddings,
        model.candidate_embeddings,
    )
    return dataclasses.replace(evaluation, rating=rating_quality(predicted, dataset, split))
