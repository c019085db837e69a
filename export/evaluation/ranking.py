"""Exact ranks of held-out candidates in the whole corpus; ties rank by position."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split

__all__ = [
    "Ranking",
    "Scorer",
    "batches",
    "inner_product_scorer",
    "rank_held_out",
    "rank_in_one_order",
]

# Scores of users by position: int `[b]` -> float32 `[b, num_candidates]`. The caller may modify
# the result.
Scorer = Callable[[npt.NDArray[np.int32]], npt.NDArray[np.float32]]

_SCORES_PER_BATCH = 16_000_000  # float32 scores in memory at once, 64 MB


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of the held-out interactions of each user, with and without seen candidates.

    Attributes:
        top_k: Number of ranks that are distinguished.
        users: int32 `[num_judged]`, positions of the users with held-out interactions.
        owners: int64 `[num_held_out]`, place in `users` of each interaction's user.
        candidates: int32 `[num_held_out]`, held-out candidates.
        ranks: By protocol, int64 `[num_held_out]`, from 0; `top_k` if not in the top k. With
            `seen_excluded`, a candidate that is also in the user's training part can never
            be returned, so its rank is `top_k`.
        top: By protocol, int32 `[num_judged, top_k]`, best candidates first; -1 after the last.
    """

    top_k: int
    users: npt.NDArray[np.int32]
    owners: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    ranks: dict[str, npt.NDArray[np.int64]]
    top: dict[str, npt.NDArray[np.int32]]


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
    top_k = min(top_k, len(dataset.candidate_ids))
    users, owners = np.unique(dataset.user_positions[judged], return_inverse=True)
    candidates = dataset.candidate_positions[judged]
    ranks = {p: np.empty(len(judged), np.int64) for p in ("seen_kept", "seen_excluded")}
    top = {p: np.empty((len(users), top_k), np.int32) for p in ranks}
    own_cells = Pairs.by_row(owners, np.arange(len(judged)), num_rows=len(users))
    for start, stop in batches(len(users), scores_per_batch // len(dataset.candidate_ids)):
        scores = scorer(users[start:stop])
        cells = own_cells.of(start, stop)
        rows = owners[cells] - start
        own = (rows, candidates[cells])
        for protocol in ranks:
            if protocol == "seen_excluded":
                places, entries = known.cells(users[start:stop])
                scores[places, known.columns[entries]] = -np.inf
            best, ahead = _rank(scores, own, top_k)
            top[protocol][start:stop] = best
            ranks[protocol][cells] = ahead
    return Ranking(
        top_k=top_k, users=users, owners=owners, candidates=candidates, ranks=ranks, top=top
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
        ranks={
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


def _rank(
    scores: npt.NDArray[np.float32],
    own: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    top_k: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Best candidates of each row, and ranks of some cells, at most `top_k`.

    Only the scores that reach the k-th best are sorted, so the cost is that of one selection
    per row.
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
    # Ties at the k-th place can give more than k.
    within = place < top_k
    rows, columns, place = rows[within], columns[within], place[within]
    best = np.full((num_rows, top_k), -1, np.int32)
    best[rows, place] = columns
    keys = rows.astype(np.int64) * num_candidates + columns
    by_key = np.argsort(keys)
    targets = own[0] * num_candidates + own[1]
    at = np.minimum(np.searchsorted(keys, targets, sorter=by_key), len(keys) - 1)
    in_top = keys[by_key[at]] == targets if len(keys) else np.zeros(len(targets), bool)
    ahead = np.full(len(targets), top_k, np.int64)
    ahead[in_top] = place[by_key[at[in_top]]]
    return best, ahead
