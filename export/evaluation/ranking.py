"""Where held-out candidates rank in the whole corpus: exact, ties by position."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split

__all__ = ["Ranking", "Scorer", "inner_product_scorer", "rank_held_out", "rank_in_one_order"]

# Scores of some users, given by position: int `[b]` -> float32 `[b, num_candidates]`.
# The caller may change what it gets.
Scorer = Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]]

_SCORES_PER_BATCH = 16_000_000  # float32 scores in memory at once, 64 MB


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How the held-out interactions of each user rank, with and without seen candidates.

    Attributes:
        top_k: Ranks from here on are not told apart.
        users: int32 `[num_judged]`, positions of the users with held-out interactions.
        owners: int64 `[num_held_out]`, into `users`.
        candidates: int32 `[num_held_out]`, the candidate held out.
        ranks: By protocol, int64 `[num_held_out]`, from 0; `top_k` for any beyond. Under
            `seen_excluded`, a candidate that the user has in the training part, too, can
            never be returned and has `top_k`.
        top: By protocol, int32 `[num_judged, top_k]`, best candidates first; -1 where the
            user has no further ones.
    """

    top_k: int
    users: npt.NDArray[np.int32]
    owners: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    ranks: dict[str, npt.NDArray[np.int64]]
    top: dict[str, npt.NDArray[np.int32]]


class _SeenPairs:
    """Each user's candidates in a part of the interactions, once each."""

    def __init__(self, dataset: Dataset, interactions: npt.NDArray[np.int64]) -> None:
        users = dataset.user_positions[interactions].astype(np.int64)
        num_candidates = len(dataset.candidate_ids)
        pairs = np.unique(users * num_candidates + dataset.candidate_positions[interactions])
        self._candidates = (pairs % num_candidates).astype(np.int32)
        self._starts = np.searchsorted(
            pairs // num_candidates, np.arange(len(dataset.user_ids) + 1)
        )

    def cells(
        self, users: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Rows, in 0..len(users)-1, and candidates of all pairs that those users have."""
        starts, counts = self._starts[users], self.counts(users)
        rows = np.repeat(np.arange(len(users)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, self._candidates[np.repeat(starts, counts) + within]

    def counts(self, users: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """How many candidates each of those users has."""
        return np.asarray(self._starts[users + 1] - self._starts[users])


def inner_product_scorer(
    query_embeddings: npt.NDArray[np.float32], candidate_embeddings: npt.NDArray[np.float32]
) -> Scorer:
    """Scores of a model: inner products of `[num_users, d]` and `[num_candidates, d]`."""
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
) -> Ranking:
    """Ranks held-out candidates among all of the corpus, and among all but the seen ones.

    Equal scores go by position, as in `tf.math.top_k`. Each user is scored once; memory
    holds one batch of scores, whatever the corpus size.

    Args:
        scorer: Whose order is judged.
        dataset: The interactions that `split` refers to.
        split: Says what was trained on (and so is seen) and what was held out.
        top_k: How far ranks are told apart; at most the corpus is used.
        judged: Positions of the interactions to rank, instead of the held-out ones.
        seen: Positions of the interactions that are seen, instead of the training ones.

    Raises:
        ValueError: There is nothing to judge.
    """
    judged = split.held_out if judged is None else judged
    if not len(judged):
        raise ValueError(f"{dataset.name} has no held-out interactions; nothing can be judged")
    known = _SeenPairs(dataset, split.training if seen is None else seen)
    top_k = min(top_k, len(dataset.candidate_ids))
    users, owners = np.unique(dataset.user_positions[judged], return_inverse=True)
    candidates = dataset.candidate_positions[judged]
    ranks = {p: np.empty(len(judged), np.int64) for p in ("seen_kept", "seen_excluded")}
    top = {p: np.empty((len(users), top_k), np.int32) for p in ranks}
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(len(users) + 1))
    for start, stop in _batches(len(users), len(dataset.candidate_ids)):
        scores = scorer(users[start:stop])
        cells = order[bounds[start] : bounds[stop]]
        rows = owners[cells] - start
        own = (rows, candidates[cells])
        for protocol in ranks:
            if protocol == "seen_excluded":
                scores[known.cells(users[start:stop])] = -np.inf
            best, ahead = _rank(scores, own, top_k)
            top[protocol][start:stop] = best
            ranks[protocol][cells] = ahead
    return Ranking(
        top_k=top_k, users=users, owners=owners, candidates=candidates, ranks=ranks, top=top
    )


def rank_in_one_order(
    order: npt.NDArray[np.int64], dataset: Dataset, split: Split, *, top_k: int
) -> Ranking:
    """As `rank_held_out`, where everybody is shown the corpus in the same order.

    Scores nothing: the cost is that of sorting what users have seen, whatever the corpus.
    What is not held out counts as seen.

    Args:
        order: `[num_candidates]`, all positions of the corpus, best first.
        dataset: The interactions that `split` refers to.
        split: Says what is seen and what was held out.
        top_k: How far ranks are told apart; at most the corpus is used.

    Raises:
        ValueError: There is nothing to judge.
    """
    judged, num_candidates = split.held_out, len(order)
    if not len(judged):
        raise ValueError(f"{dataset.name} has no held-out interactions; nothing can be judged")
    top_k = min(top_k, num_candidates)
    users, owners = np.unique(dataset.user_positions[judged], return_inverse=True)
    candidates = dataset.candidate_positions[judged]
    place = np.empty(num_candidates, np.int64)
    place[order] = np.arange(num_candidates)
    rows, seen = _SeenPairs(dataset, split.fitted).cells(users)
    # Ascending by user, then by place: where each user's seen candidates stand in the order.
    keys = np.sort(rows * num_candidates + place[seen])
    starts = np.searchsorted(keys, np.arange(len(users)) * num_candidates)
    wanted = owners * num_candidates + place[candidates]
    at = np.searchsorted(keys, wanted)
    gone = keys[np.minimum(at, len(keys) - 1)] == wanted if len(keys) else np.zeros(len(at), bool)
    left = place[candidates] - (at - starts[owners])
    shifted = keys - (np.arange(len(keys)) - starts[rows])
    return Ranking(
        top_k=top_k,
        users=users,
        owners=owners,
        candidates=candidates,
        ranks={
            "seen_kept": np.minimum(place[candidates], top_k),
            "seen_excluded": np.where(gone, top_k, np.minimum(left, top_k)),
        },
        top={
            "seen_kept": np.broadcast_to(order[:top_k].astype(np.int32), (len(users), top_k)),
            "seen_excluded": _first_unseen(order, shifted, starts, top_k),
        },
    )


def _first_unseen(
    order: npt.NDArray[np.int64],
    shifted: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    top_k: int,
) -> npt.NDArray[np.int32]:
    """The first candidates of an order that each user has not seen, int32 `[users, top_k]`.

    A user's j-th unseen candidate stands at j plus the number of seen ones ahead of it.
    Those are the i-th seen ones with (place - i) <= j, which ascends like the places.

    Args:
        order: `[num_candidates]`, best first.
        shifted: Of all seen candidates, user by user: user * num_candidates + place - i.
        starts: `[users]`, where each user's begin.
        top_k: At most num_candidates.
    """
    unseen = np.full((len(starts), top_k), -1, np.int32)
    for start, stop in _batches(len(starts), top_k):
        part = np.arange(start, stop)[:, None]
        cells = part * len(order) + np.arange(top_k)
        places = np.searchsorted(shifted, cells, side="right") - starts[part] + np.arange(top_k)
        found = places < len(order)
        unseen[start:stop][found] = order[places[found]]
    return unseen


def _batches(num_users: int, num_candidates: int) -> Iterator[tuple[int, int]]:
    size = max(1, _SCORES_PER_BATCH // num_candidates)
    for start in range(0, num_users, size):
        yield start, min(start + size, num_users)


def _rank(
    scores: npt.NDArray[np.float32],
    own: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    top_k: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The best candidates of each row, and the ranks of some cells, at most `top_k`.

    Only the scores that reach the k-th best take part in any sort, so the cost is that
    of one selection per row.
    """
    num_rows, num_candidates = scores.shape
    floor = np.partition(scores, num_candidates - top_k, axis=1)[:, num_candidates - top_k]
    rows, columns = np.nonzero(scores >= floor[:, None])
    values = scores[rows, columns]
    finite = values > -np.inf
    rows, columns, values = rows[finite], columns[finite], values[finite]
    order = np.lexsort((columns, -values, rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    # Ties at the k-th place may bring more than k: those come last.
    keep = place < top_k
    rows, columns, place = rows[keep], columns[keep], place[keep]
    best = np.full((num_rows, top_k), -1, np.int32)
    best[rows, place] = columns
    keys = rows.astype(np.int64) * num_candidates + columns
    by_key = np.argsort(keys)
    wanted = own[0] * num_candidates + own[1]
    at = np.minimum(np.searchsorted(keys, wanted, sorter=by_key), len(keys) - 1)
    found = keys[by_key[at]] == wanted if len(keys) else np.zeros(len(wanted), bool)
    ahead = np.full(len(wanted), top_k, np.int64)
    ahead[found] = place[by_key[at[found]]]
    return best, ahead
