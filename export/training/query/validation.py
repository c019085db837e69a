"""Measures a model under training on the validation part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.questions import Questions, validation_questions
from shortlist.export.data.split import Split
from shortlist.export.evaluation.metrics import at_k
from shortlist.export.evaluation.ranking import inner_product_scorer, rank_questions
from shortlist.export.towers.trained import embed_part
from shortlist.export.training.query.taste import Taste

__all__ = ["Validation"]

Vectors = npt.NDArray[np.float32]

_K = 100
_MOST_QUESTIONS = 5_000  # a sample is enough to choose by
_MOST_SCORES = 500_000_000  # of one look: a few seconds with 256 dimensions


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """Questions of the validation part.

    Attributes:
        questions: Questions, or a sample of them.
        histories: Events before each question.
        kept: Events of the user of each question that a model of the training part has met.
    """

    questions: Questions
    histories: Histories
    kept: Histories

    @classmethod
    def of_split(cls, dataset: Dataset, split: Split, kept: Histories, *, seed: int) -> Self:
        """Collect the questions; `kept` holds the events of the training part `[num_users]`."""
        most = max(min(_MOST_QUESTIONS, _MOST_SCORES // len(dataset.candidate_ids)), 1)
        questions = validation_questions(dataset, split, most=most, seed=seed)
        return cls(
            questions=questions, histories=questions.histories, kept=kept.take(questions.users)
        )

    def taste_queries(self, taste: Taste, *, decay: float, user_share: float) -> Vectors:
        """Return the taste's queries, float32 `[num_questions, d]`."""
        part = taste.part(decay=decay)
        queries = embed_part(part, taste.candidates, self.histories)
        if user_share:
            own = taste.users[self.questions.users]
            own = own - embed_part(part, taste.candidates, self.kept)
            queries += np.where(self.questions.known[:, None], np.float32(user_share) * own, 0)
        return queries

    def best_ndcg(self, taste: Taste, ways: Sequence[tuple[float, float]]) -> float:
        """Return the best NDCG@100 of a taste by several decays and user shares."""
        return max(
            self.ndcg(self.taste_queries(taste, decay=decay, user_share=share), taste.candidates)
            for decay, share in ways
        )

    def ndcg(self, queries: Vectors, candidates: Vectors) -> float:
        """NDCG@100 with seen candidates excluded; with them if all validation repeats one.

        Args:
            queries: `[num_questions, d]`.
            candidates: `[num_candidates, d]`.
        """
        ranking = rank_questions(
            inner_product_scorer(queries, candidates), self.questions, top_k=_K
        )
        ranks = ranking.ranks["seen_excluded"]
        if not len(ranks):
            ranks = ranking.ranks["seen_kept"]
        return at_k(ranks, [ranking.top_k])[f"ndcg@{ranking.top_k}"]
