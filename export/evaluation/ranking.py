"""Exact ranks of held-out candidates in the whole corpus; ties rank by position."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.config import PROTOCOLS, Protocol
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split

__all__ = [
    "Ranking",
    "Scorer",
    "batches",
    "inner_product_scorer",
    "places_in",
    "rank_held_out",
    "rank_in_one_order",
]

# Scores of users by position: int `[b]` -> float `[b, num_candidates]`. The caller may modify the
# result.
Scorer = Callable[[npt.NDArray[np.int32]], npt.NDArray[np.floating]]

_SCORES_PER_BATCH = 16_000_000  # scores in memory at once, 64 MB of float32
_CELLS = 10_000_000  # comparisons of held-out candidates with lists at once


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of the held-out interactions of each user, with and without seen candidates.

    Attributes:
        top_k: Number of ranks that are distinguished.
        users: int32 `[num_judged]`, positions of the users with held-out interactions.
        owners: int64 `[num_held_out]`, place in `users` of each interaction's user.
        candidates: int32 `[num_held_out]`, held-out candidates.
        repeats: bool `[num_held_out]`, whether the user has seen the candidate.
        places: By protocol, int64 `[num_held_out]`, ranks from 0; `top_k` if not in the top k.
            With `seen_excluded`, repeats are never in the top k.
        top: By protocol, int32 `[num_judged, top_k]`, best candidates first; -1 after the last.
    """

    top_k: int
    users: npt.NDArray[np.int32]
    owners: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    repeats: npt.NDArray[np.bool_]
    places: Mapping[Protocol, npt.NDArray[np.int64]]
    top: Mapping[Protocol, npt.NDArray[np.int32]]

    def counted(self, protocol: Protocol) -> npt.NDArray[np.bool_]:
        """Return which held-out interactions count: those that answers can contain.

        With `seen_excluded` these are all but the repeats.
        """
        return ~self.repeats if protocol == "seen_excluded" else np.ones_like(self.repeats)

    @property
    def ranks(self) -> dict[Protocol, npt.NDArray[np.int64]]:
        """By protocol, the ranks of the interactions that count, int64 `[num_counted]`."""
        return {protocol: ranks[self.counted(protocol)] for protocol, ranks in self.places.items()}


def inner_product_scorer(
    query_embeddings: npt.NDArray[np.float32], candidate_embeddings: npt.NDArray[np.float32]
) -> Scorer:
    """Scores by inner products of `[num_users, d]` and `[num_candidates, d]`."""
    transposed = candidate_embeddings.T

    def score(users: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        return query_embeddings[users] @ transposed

    return score


def rank_held_out(
    scorer: Scorer,
    dataset: Dataset,
    split: Split,
    *,
    top_k: int,
    judged: npt.NDArray[np.int64] | None = None,
    seen: npt.NDArray[np.int64] | None = None,
    scores_per_batch: int = _SCORES_PER_BATCH,
) -> Ranking:
    """Rank held-out candidates in the whole corpus, and in the corpus without seen candidates.

    Equal scores rank by position, as in `tf.math.top_k`. Each user is scored once; memory
    holds one batch of scores, whatever the size of the corpus.

    Args:
        scorer: Scores to rank by.
        dataset: Interactions that `split` refers to.
        split: Training part, which counts as seen, and held-out part.
        top_k: Number of ranks to distinguish, at most the size of the corpus.
        judged: Positions of the interactions to rank; None for the held-out ones.
        seen: Positions of the seen interactions; None for the training part.
        scores_per_batch: Scores in memory at once.

    Raises:
        ValueError: Nothing is held out.
    """
    judged = split.held_out if judged is None else judged
    if not len(judged):
        raise ValueError(f"{dataset.name} has no held-out interactions to evaluate on")
    known = Pairs.by_user(dataset, split.training if seen is None else seen, distinct=True)
    num_candidates = len(dataset.candidate_ids)
    top_k = min(top_k, num_candidates)
    users, owners = np.unique(dataset.user_positions[judged], return_inverse=True)
    candidates = dataset.candidate_positions[judged]
    top = {protocol: np.empty((len(users), top_k), np.int32) for protocol in PROTOCOLS}
    for start, stop in batches(len(users), scores_per_batch // num_candidates):
        scores = scorer(users[start:stop])
        rows, entries = known.cells(users[start:stop])
        columns = known.columns[entries]
        seen_scores = scores[rows, columns]
        scores[rows, columns] = -np.inf
        unseen = _best(scores, top_k)
        # The best of all candidates are among the best unseen ones and the best seen ones.
        order = np.lexsort((columns, -seen_scores, rows))
        best_seen = _Best.padded(rows, columns[order], seen_scores[order], len(scores), top_k)
        top["seen_excluded"][start:stop] = unseen.columns
        top["seen_kept"][start:stop] = unseen.joined(best_seen).columns
    return Ranking(
        top_k=top_k,
        users=users,
        owners=owners,
        candidates=candidates,
        repeats=known.contain(users[owners], candidates),
        places={protocol: places_in(rows, owners, candidates) for protocol, rows in top.items()},
        top=top,
    )


def rank_in_one_order(
    order: npt.NDArray[np.int64],
    dataset: Dataset,
    split: Split,
    *,
    top_k: int,
    cells_per_batch: int = _SCORES_PER_BATCH,
) -> Ranking:
    """Rank held-out candidates as `rank_held_out` does, with one order for all users.

    Computes no scores: the cost is that of sorting the seen candidates, whatever the size of
    the corpus. Interactions that are not held out count as seen.

    Args:
        order: `[num_candidates]`, all positions of the corpus, best first.
        dataset: Interactions that `split` refers to.
        split: Seen and held-out parts.
        top_k: Number of ranks to distinguish, at most the size of the corpus.
        cells_per_batch: Ranks in memory at once.

    Raises:
        ValueError: Nothing is held out.
    """
    judged, num_candidates = split.held_out, len(order)
    if not len(judged):
        raise ValueError(f"{dataset.name} has no held-out interactions to evaluate on")
    top_k = min(top_k, num_candidates)
    users, owners = np.unique(dataset.user_positions[judged], return_inverse=True)
    candidates = dataset.candidate_positions[judged]
    place = np.empty(num_candidates, np.int64)
    place[order] = np.arange(num_candidates)
    known = Pairs.by_user(dataset, split.fitted, distinct=True)
    rows, entries = known.cells(users)
    # Places of the seen candidates in the order, ascending by user, then by place.
    keys = np.sort(rows * num_candidates + place[known.columns[entries]])
    starts = np.searchsorted(keys, np.arange(len(users)) * num_candidates)
    targets = owners * num_candidates + place[candidates]
    at = np.searchsorted(keys, targets)
    seen = keys[np.minimum(at, len(keys) - 1)] == targets if len(keys) else np.zeros(len(at), bool)
    left = place[candidates] - (at - starts[owners])
    shifted = keys - (np.arange(len(keys)) - starts[rows])
    return Ranking(
        top_k=top_k,
        users=users,
        owners=owners,
        candidates=candidates,
        repeats=seen,
        places={
            "seen_kept": np.minimum(place[candidates], top_k),
            "seen_excluded": np.where(seen, top_k, np.minimum(left, top_k)),
        },
        top={
            "seen_kept": np.broadcast_to(order[:top_k].astype(np.int32), (len(users), top_k)),
            "seen_excluded": _first_unseen(order, shifted, starts, top_k, cells_per_batch),
        },
    )


def _first_unseen(
    order: npt.NDArray[np.int64],
    shifted: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    top_k: int,
    cells_per_batch: int,
) -> npt.NDArray[np.int32]:
    """First candidates of an order that each user has not seen, int32 `[users, top_k]`.

    The j-th unseen candidate of a user is at place j plus the number of seen ones ahead of it.
    Those are the i-th seen ones with (place - i) <= j, which ascends like the places.

    Args:
        order: `[num_candidates]`, best first.
        shifted: user * num_candidates + place - i of all seen candidates, user by user.
        starts: `[users]`, start of each user in `shifted`.
        top_k: Length of the lists, at most num_candidates.
        cells_per_batch: Ranks in memory at once.
    """
    unseen = np.full((len(starts), top_k), -1, np.int32)
    for start, stop in batches(len(starts), cells_per_batch // top_k):
        part = np.arange(start, stop)[:, None]
        cells = part * len(order) + np.arange(top_k)
        places = np.searchsorted(shifted, cells, side="right") - starts[part] + np.arange(top_k)
        valid = places < len(order)
        unseen[start:stop][valid] = order[places[valid]]
    return unseen


def batches(num_users: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of consecutive batches, each of at least one user."""
    size = max(1, size)
    for start in range(0, num_users, size):
        yield start, min(start + size, num_users)


def places_in(
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

    Only as many cells as are returned get sorted, however many are equal: of those that tie
    at the k-th place, the first are taken.
    """
    num_rows, num_candidates = scores.shape
    floor = np.partition(scores, num_candidates - top_k, axis=1)[:, num_candidates - top_k]
    rows, columns = np.divmod(np.flatnonzero(scores >= floor[:, None]), num_candidates)
    values = scores[rows, columns]
    tie = values == floor[rows]
    # Ties up to and including each cell, counted from the start of its row.
    ties = np.cumsum(tie)
    starts = np.searchsorted(rows, np.arange(num_rows))
    ties -= (ties[starts] - tie[starts])[rows]
    room = top_k - np.bincount(rows[~tie], minlength=num_rows)
    kept = (~tie | (ties <= room[rows])) & (values > -np.inf)
    best = _Best.padded(rows[kept], columns[kept], values[kept], num_rows, top_k)
    order = np.argsort(-best.scores, axis=1, kind="stable")
    return _Best(
        np.take_along_axis(best.scores, order, axis=1),
        np.take_along_axis(best.columns, order, axis=1),
    )
