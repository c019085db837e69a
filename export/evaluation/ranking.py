"""Exact ranks of judged candidates in the whole corpus; ties rank by position."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shortlist.clients.cli.progress import tracked
from shortlist.export.config import PROTOCOLS, Protocol
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.questions import Questions

__all__ = [
    "Ranking",
    "Scorer",
    "batches",
    "rank_answers",
    "rank_in_one_order",
    "rank_lists",
]

# Scores of the answers to some questions: int rows of the questions `[b]` -> float
# `[b, num_candidates]`. The caller may modify the result.
Scorer = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.floating]]

# Best candidates by protocol: int rows of the questions `[b]` -> int32 `[b, top_k]`, best first;
# -1 after the last.
Lists = Callable[[npt.NDArray[np.int64]], Mapping[Protocol, npt.NDArray[np.int32]]]

_SCORES_PER_BATCH = 16_000_000  # scores in memory at once, 64 MB of float32
_CELLS_PER_BATCH = 2_000_000  # ranks in memory at once
_CELLS = 10_000_000  # comparisons of judged candidates with lists at once


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of the judged candidates of each question, with and without seen candidates.

    Attributes:
        questions: The questions.
        top_k: Number of ranks that are distinguished.
        places: By protocol, int64 `[num_judged]`, ranks from 0; `top_k` if not in the top k.
            With `seen_excluded`, repeats are never in the top k.
        top: By protocol, int32 `[num_questions, top_k]`, best candidates first; -1 after the last.
        best_scores: By protocol, float32 `[num_questions]`, score of the best candidate, -inf
            without one; empty if no scores were computed.
    """

    questions: Questions
    top_k: int
    places: Mapping[Protocol, npt.NDArray[np.int64]]
    top: Mapping[Protocol, npt.NDArray[np.int32]]
    best_scores: Mapping[Protocol, npt.NDArray[np.float32]] = field(default_factory=dict)

    def counted(self, protocol: Protocol) -> npt.NDArray[np.bool_]:
        """Return which judged interactions count: those that answers can contain.

        With `seen_excluded` these are all but the repeats.
        """
        repeats = self.questions.repeats
        return ~repeats if protocol == "seen_excluded" else np.ones_like(repeats)

    def weights(self, protocol: Protocol) -> npt.NDArray[np.float32] | None:
        """Return what each interaction that counts does count; None if all count 1."""
        weights = self.questions.weights
        return None if weights is None else weights[self.counted(protocol)]

    @property
    def ranks(self) -> dict[Protocol, npt.NDArray[np.int64]]:
        """By protocol, the ranks of the interactions that count, int64 `[num_counted]`."""
        return {protocol: ranks[self.counted(protocol)] for protocol, ranks in self.places.items()}


def rank_answers(
    scorer: Scorer,
    questions: Questions,
    *,
    top_k: int,
    scores_per_batch: int = _SCORES_PER_BATCH,
) -> Ranking:
    """Rank judged candidates in the whole corpus, and in the corpus without seen candidates.

    Equal scores rank by position, as in `tf.math.top_k`. Each question is scored once; memory
    holds one batch of scores, whatever the size of the corpus.

    Args:
        scorer: Scores to rank by.
        questions: Questions, in whose histories candidates count as seen.
        top_k: Number of ranks to distinguish, at most the size of the corpus.
        scores_per_batch: Scores in memory at once.
    """
    num_candidates = questions.timelines.num_candidates
    top_k = min(top_k, num_candidates)
    best = {protocol: np.empty(len(questions), np.float32) for protocol in PROTOCOLS}

    def lists(rows: npt.NDArray[np.int64]) -> Mapping[Protocol, npt.NDArray[np.int32]]:
        scores = scorer(rows)
        seen = questions.take(rows).histories.distinct()
        owners = np.repeat(np.arange(len(rows)), seen.counts)
        seen_scores = scores[owners, seen.columns]
        scores[owners, seen.columns] = -np.inf
        unseen = _best(scores, top_k)
        # The best of all candidates are among the best unseen ones and the best seen ones.
        order = np.lexsort((-seen_scores, owners))
        best_seen = _Best.padded(
            owners, seen.columns[order], seen_scores[order], len(scores), top_k
        )
        ranked: dict[Protocol, _Best] = {
            "seen_excluded": unseen,
            "seen_kept": unseen.joined(best_seen),
        }
        for protocol, answers in ranked.items():
            best[protocol][rows] = answers.scores[:, 0]
        return {protocol: answers.columns for protocol, answers in ranked.items()}

    size = scores_per_batch // num_candidates
    ranking = rank_lists(lists, questions, top_k=top_k, batch_size=size)
    return replace(ranking, best_scores=best)


def rank_in_one_order(
    order: npt.NDArray[np.int64],
    questions: Questions,
    *,
    top_k: int,
    cells_per_batch: int = _CELLS_PER_BATCH,
) -> Ranking:
    """Rank judged candidates as `rank_answers` does, with one order for all questions.

    Computes no scores: the cost is that of sorting the seen candidates, whatever the size of
    the corpus.

    Args:
        order: `[num_candidates]`, all positions of the corpus, best first.
        questions: Questions, in whose histories candidates count as seen.
        top_k: Number of ranks to distinguish, at most the size of the corpus.
        cells_per_batch: Ranks in memory at once.
    """
    top_k = min(top_k, len(order))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    first = order[:top_k].astype(np.int32)

    def lists(rows: npt.NDArray[np.int64]) -> Mapping[Protocol, npt.NDArray[np.int32]]:
        seen = questions.take(rows).histories.distinct()
        owners = np.repeat(np.arange(len(rows)), seen.counts)
        unseen = _first_unseen(
            order, np.sort(owners * len(order) + place[seen.columns]), seen, top_k
        )
        return {"seen_excluded": unseen, "seen_kept": np.broadcast_to(first, unseen.shape)}

    return rank_lists(lists, questions, top_k=top_k, batch_size=cells_per_batch // top_k)


def rank_lists(lists: Lists, questions: Questions, *, top_k: int, batch_size: int) -> Ranking:
    """Rank judged candidates by their places in lists of the best candidates.

    Args:
        lists: Best candidates of some questions.
        questions: Questions.
        top_k: Length of the lists.
        batch_size: Questions per call of `lists`.
    """
    top = {protocol: np.empty((len(questions), top_k), np.int32) for protocol in PROTOCOLS}
    for start, stop in tracked(list(batches(len(questions), batch_size)), "ranking"):
        for protocol, best in lists(np.arange(start, stop)).items():
            top[protocol][start:stop] = best
    return Ranking(
        questions=questions,
        top_k=top_k,
        places={
            protocol: _places_in(rows, questions.owners, questions.candidates)
            for protocol, rows in top.items()
        },
        top=top,
    )


def _first_unseen(
    order: npt.NDArray[np.int64], keys: npt.NDArray[np.int64], seen: Pairs, top_k: int
) -> npt.NDArray[np.int32]:
    """First candidates of an order that each question's user has not seen, int32 `[b, top_k]`.

    The j-th unseen candidate is at place j plus the number of seen ones ahead of it. Those are
    the i-th seen ones with (place - i) <= j, which ascends like the places.

    Args:
        order: `[num_candidates]`, best first.
        keys: row * num_candidates + place in the order of all seen candidates, ascending.
        seen: Seen candidates of each question.
        top_k: Length of the lists, at most num_candidates.
    """
    starts = seen.starts[:-1]
    shifted = keys - (np.arange(len(keys)) - np.repeat(starts, seen.counts))
    cells = np.arange(seen.num_rows)[:, None] * len(order) + np.arange(top_k)
    ahead = np.searchsorted(shifted, cells, side="right") - starts[:, None]
    places = ahead + np.arange(top_k)
    unseen = np.full(places.shape, -1, np.int32)
    valid = places < len(order)
    unseen[valid] = order[places[valid]]
    return unseen


def batches(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of consecutive batches, none of them empty."""
    size = max(1, size)
    for start in range(0, total, size):
        yield start, min(start + size, total)


def _places_in(
    top: npt.NDArray[np.int32],
    owners: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int32],
) -> npt.NDArray[np.int64]:
    """Return the place of each candidate in its owner's list; the list's length if not there.

    Args:
        top: `[num_lists, k]`.
        owners: `[n]`, list of each candidate.
        candidates: `[n]`.
    """
    k = top.shape[1]
    places = np.full(len(owners), k, np.int64)
    for start, stop in batches(len(owners), _CELLS // k):
        rows, columns = np.nonzero(top[owners[start:stop]] == candidates[start:stop, None])
        places[start + rows] = columns
    return places


@dataclass(frozen=True)
class _Best:
    """Best candidates of some rows, sorted.

    Attributes:
        scores: `[num_rows, top_k]`, -inf after the last.
        columns: int32 `[num_rows, top_k]`, -1 after the last.
    """

    scores: npt.NDArray[np.floating]
    columns: npt.NDArray[np.int32]

    @classmethod
    def padded(
        cls,
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.integer],
        scores: npt.NDArray[np.floating],
        num_rows: int,
        top_k: int,
    ) -> "_Best":
        """Return the first `top_k` cells of each row; `rows` ascends."""
        within = np.arange(len(rows)) - np.searchsorted(rows, np.arange(num_rows))[rows]
        first = within < top_k
        best = cls(
            np.full((num_rows, top_k), -np.inf, scores.dtype),
            np.full((num_rows, top_k), -1, np.int32),
        )
        best.scores[rows[first], within[first]] = scores[first]
        best.columns[rows[first], within[first]] = columns[first]
        return best

    def joined(self, other: "_Best") -> "_Best":
        """Return the best of both, which share no candidates; equal scores rank by position."""
        scores = np.concatenate([self.scores, other.scores], axis=1)
        columns = np.concatenate([self.columns, other.columns], axis=1)
        order = np.lexsort((columns, -scores), axis=1)[:, : self.scores.shape[1]]
        return _Best(
            np.take_along_axis(scores, order, axis=1), np.take_along_axis(columns, order, axis=1)
        )


def _best(scores: npt.NDArray[np.floating], top_k: int) -> _Best:
    """Return the best candidates of each row, without those of score -inf.

    Only cells from a lower bound of the k-th best score are sorted, and of those that equal the
    bound only as many as may be needed, however many there are.
    """
    num_rows, num_candidates = scores.shape
    floor = _floor(scores, top_k)
    rows, columns = np.divmod(np.flatnonzero(scores >= floor[:, None]), num_candidates)
    values = scores[rows, columns]
    tie = values == floor[rows]
    # Ties up to and including each cell, counted from the start of its row.
    ties = np.cumsum(tie)
    starts = np.searchsorted(rows, np.arange(num_rows))
    ties -= (ties[starts] - tie[starts])[rows]
    room = top_k - np.bincount(rows[~tie], minlength=num_rows)
    kept = (~tie | (ties <= room[rows])) & (values > -np.inf)
    rows, columns, values = rows[kept], columns[kept], values[kept]
    order = np.lexsort((-values, rows))
    return _Best.padded(rows, columns[order], values[order], num_rows, top_k)


def _floor(scores: npt.NDArray[np.floating], top_k: int) -> npt.NDArray[np.floating]:
    """Lower bound of each row's k-th best score, `[num_rows]`: the k-th best of groups' bests.

    Bests of groups take a fifth of the time of partitioning all scores.
    """
    num_rows, num_candidates = scores.shape
    size = max(1, num_candidates // (4 * top_k))
    groups = num_candidates // size
    best = scores[:, : size * groups].reshape(num_rows, size, groups).max(axis=1)
    bound: npt.NDArray[np.floating] = np.partition(best, groups - top_k, axis=1)[:, groups - top_k]
    return bound
