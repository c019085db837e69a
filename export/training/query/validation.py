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
from shortlist.export.evaluation.ranking import batches
from shortlist.export.towers.trained import embed_part
from shortlist.export.training.query.taste import Taste

__all__ = ["Validation"]

Vectors = npt.NDArray[np.float32]

_KS = (10, 100)
_MOST_QUESTIONS = 5_000  # a sample is enough to choose by
_MOST_SCORES = 500_000_000  # of one look: a few seconds with 256 dimensions
_CELLS = 16_000_000  # scores in memory at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """Questions of the validation part.

    Attributes:
        questions: Questions, or a sample of them.
        histories: Events before each question.
        kept: Events of the user of each question that a model of the training part has met.
        repeats: bool `[num_judged]`, whether the user had the candidate before.
    """

    questions: Questions
    histories: Histories
    kept: Histories
    repeats: npt.NDArray[np.bool_]

    @classmethod
    def of_split(cls, dataset: Dataset, split: Split, kept: Histories, *, seed: int) -> Self:
        """Collect the questions; `kept` holds the events of the training part `[num_users]`."""
        most = max(min(_MOST_QUESTIONS, _MOST_SCORES // len(dataset.candidate_ids)), 1)
        questions = validation_questions(dataset, split, most=most, seed=seed)
        histories = questions.histories
        return cls(
            questions=questions,
            histories=histories,
            kept=kept.take(questions.users),
            repeats=histories.distinct().contain(questions.owners, questions.candidates),
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
            self._ndcg(self.taste_queries(taste, decay=decay, user_share=share), taste.candidates)[
                "ndcg@100"
            ]
            for decay, share in ways
        )

    def score(self, queries: Vectors, candidates: Vectors) -> float:
        """Return the mean of NDCG@10 and NDCG@100, by which settings are chosen.

        Args:
            queries: `[num_questions, d]`.
            candidates: `[num_candidates, d]`.
        """
        return sum(self._ndcg(queries, candidates).values()) / len(_KS)

    def _ndcg(self, queries: Vectors, candidates: Vectors) -> dict[str, float]:
        """NDCG at 10 and 100, without what each user had before if anything is new."""
        questions, seen = self.questions, self.histories.events
        ranks = np.empty(len(questions.owners), np.int64)
        judged = np.searchsorted(questions.owners, np.arange(len(questions) + 1))
        for start, stop in batches(len(questions), _CELLS // len(candidates)):
            scores = queries[start:stop] @ candidates.T
            if not self.repeats.all():
                rows, entries = seen.cells(np.arange(start, stop))
                scores[rows, seen.columns[entries]] = -np.inf
            first, last = judged[start], judged[stop]
            for low, high in batches(last - first, _CELLS // len(candidates)):
                some = slice(first + low, first + high)
                rows = questions.owners[some] - start
                own = scores[rows, questions.candidates[some]]
                ranks[some] = np.count_nonzero(scores[rows] > own[:, None], axis=1)
        weights = questions.weights
        if not self.repeats.all():
            ranks = ranks[~self.repeats]
            weights = None if weights is None else weights[~self.repeats]
        metrics = at_k(ranks, _KS, weights)
        return {f"ndcg@{k}": metrics[f"ndcg@{k}"] for k in _KS}
