"""Judges a trained model on the held-out part: its order, and what else it answers."""

import dataclasses

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.ratings import rating_quality
from shortlist.export.data.split import Split
from shortlist.export.evaluation.evaluate import Evaluation, evaluate
from shortlist.export.evaluation.ranking import inner_product_scorer
from shortlist.export.evaluation.similar import similar_quality
from shortlist.export.towers.trained import TrainedModel

__all__ = ["judge_model"]


def judge_model(
    model: TrainedModel, dataset: Dataset, split: Split, *, resamples: int = 0
) -> Evaluation:
    """Exact metrics of both towers, of the rating head and of `similar` by co-interactions.

    Raises:
        ValueError: Nothing is held out.
    """
    scorer = inner_product_scorer(model.query_embeddings, model.candidate_embeddings)
    evaluation = evaluate(scorer, dataset, split, resamples=resamples)
    if model.similar_queries is not None:
        similar = similar_quality(dataset, split, model.similar_queries, model.candidate_embeddings)
        evaluation = dataclasses.replace(evaluation, similar=similar)
    if model.rating_head is None:
        return evaluation
    predicted = model.rating_head.predict(
        dataset.user_positions[split.held_out],
        dataset.candidate_positions[split.held_out],
        model.query_embeddings,
        model.candidate_embeddings,
    )
    return dataclasses.replace(evaluation, rating=rating_quality(predicted, dataset, split))
