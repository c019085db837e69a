"""Move candidates to better leaves without filling or emptying a leaf too much."""

import numpy as np
import numpy.typing as npt

__all__ = ["leaf_means", "rebalanced"]

Matrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_NEIGHBOURS = 32  # nearest groups in which a candidate looks for a leaf
_WISHES = 8  # leaves that a candidate may choose from, best first
_ROWS_AT_ONCE = 4096
_LEAVES_AT_ONCE = 4096
_STAY = 1e-5  # share of the mean squared length by which a better leaf must be nearer


def rebalanced(
    candidate_embeddings: Matrix,
    leaf_of: Positions,
    num_leaves: int,
    *,
    group_size: int,
    width: int,
) -> Positions:
    """Return a better leaf for each candidate.

    Candidates that would lose most with their next best leaf choose first. There is only one
    pass: a second one moves leaves away from their groups, so that more groups must be
    searched.

    Args:
        candidate_embeddings: `[n, d]`.
        leaf_of: `[n]`, current leaf of each candidate.
        num_leaves: Number of leaves, some of which may be empty.
        group_size: Leaves per group; group i starts at leaf `i * group_size`.
        width: Places per leaf; all leaves together have more than n.

    Returns:
        Int64 `[n]`. Each leaf has one to `width` candidates, and at least half of `width` if
        there are enough candidates for that.
    """
    if num_leaves > 1:
        leaf_of = _move(candidate_embeddings, leaf_of, num_leaves, group_size, width)
        least = max(1, min(-(-width // 2), len(leaf_of) // num_leaves))
        _fill_up(candidate_embeddings, leaf_of, num_leaves, group_size, least)
    return leaf_of


def leaf_means(candidate_embeddings: Matrix, leaf_of: Positions, num_leaves: int) -> Matrix:
    """Return float32 `[num_leaves, d]` centroids; 0 for a leaf without candidates."""
    sizes = np.bincount(leaf_of, minlength=num_leaves)
    filled = np.flatnonzero(sizes)
    starts = (np.cumsum(sizes) - sizes)[filled]
    means = np.zeros([num_leaves, candidate_embeddings.shape[1]], np.float32)
    order = np.argsort(leaf_of, kind="stable")
    for at in range(0, len(filled), _LEAVES_AT_ONCE):  # some leaves at a time, to limit memory
        leaves = filled[at : at + _LEAVES_AT_ONCE]
        first, last = starts[at], starts[at + len(leaves) - 1] + sizes[leaves[-1]]
        rows = candidate_embeddings[order[first:last]]
        sums = np.add.reduceat(rows, starts[at : at + len(leaves)] - first, axis=0)
        means[leaves] = sums / sizes[leaves, None]
    return means


def _move(
    rows: Matrix, leaf_of: Positions, num_leaves: int, group_size: int, width: int
) -> Positions:
    """Give each row its first wish that no row with a larger margin takes, or a nearby leaf."""
    wishes, distances = _wishes(rows, leaf_of, num_leaves, group_size)
    margins = np.diff(distances, axis=1, append=distances[:, -1:])
    choice = np.zeros(len(rows), np.int64)
    moved = np.full(len(rows), num_leaves, np.int64)  # no leaf yet
    asking = np.arange(len(rows))
    while len(asking) > 0:
        asked = np.zeros(num_leaves + 1, bool)
        asked[wishes[asking, choice[asking]]] = True
        rivals = np.concatenate([np.flatnonzero(asked[moved]), asking])
        leaves = wishes[rivals, choice[rivals]]
        order = np.lexsort((rivals, -margins[rivals, choice[rivals]], leaves))
        rivals, leaves = rivals[order], leaves[order]
        taken = np.arange(len(order)) - np.searchsorted(leaves, leaves) < width
        moved[rivals[taken]] = leaves[taken]
        refused = rivals[~taken]
        moved[refused] = num_leaves
        choice[refused] += 1
        asking = refused[choice[refused] < wishes.shape[1]]
    room = width - np.bincount(moved, minlength=num_leaves + 1)[:num_leaves]
    waiting = np.flatnonzero(moved == num_leaves)
    # In the order of leaves, because neighbours have neighbouring numbers.
    waiting = waiting[np.argsort(leaf_of[waiting], kind="stable")]
    places = np.repeat(np.arange(num_leaves), room)
    nearby = np.searchsorted(places, leaf_of[waiting])
    ranks = np.arange(len(waiting))
    # Strictly increasing, close to the current leaf, and within the places.
    nearby = np.maximum.accumulate(nearby - ranks) + ranks
    nearby = np.minimum(nearby, len(places) - len(waiting) + ranks)
    moved[waiting] = places[nearby]
    return moved


def _wishes(
    rows: Matrix, leaf_of: Positions, num_leaves: int, group_size: int
) -> tuple[npt.NDArray[np.int32], Matrix]:
    """Return the nearest leaves of each row, in its own and the nearest other groups.

    Returns:
        Leaves `[n, wishes]`, nearest first, and squared distances minus the row's square.
    """
    centroids = leaf_means(rows, leaf_of, num_leaves)
    empty = np.bincount(leaf_of, minlength=num_leaves) == 0
    squares = np.where(empty, np.inf, np.einsum("ij,ij->i", centroids, centroids))
    groups = num_leaves // group_size
    near = _nearest_groups(leaf_means(rows, leaf_of // group_size, groups))
    stay = _STAY * float(np.mean(squares[~empty]))
    count = min(_WISHES, near.shape[1] * group_size)
    wishes = np.empty([len(rows), count], np.int32)
    distances = np.empty([len(rows), count], np.float32)
    order = np.argsort(leaf_of, kind="stable")
    starts = np.searchsorted(leaf_of[order], np.arange(0, num_leaves + 1, group_size))
    for group in range(groups):
        for start in range(starts[group], starts[group + 1], _ROWS_AT_ONCE):
            here = order[start : min(start + _ROWS_AT_ONCE, starts[group + 1])]
            leaves = (near[group, :, None] * group_size + np.arange(group_size)).ravel()
            far = squares[leaves] - 2 * (rows[here] @ centroids[leaves].T)
            far = np.where(leaves == leaf_of[here, None], far - stay, far)
            best = np.argpartition(far, count - 1, axis=1)[:, :count]
            far = np.take_along_axis(far, best, axis=1)
            by_distance = np.argsort(far, axis=1, kind="stable")
            wishes[here] = leaves[np.take_along_axis(best, by_distance, axis=1)]
            distances[here] = np.take_along_axis(far, by_distance, axis=1)
    return wishes, distances


def _nearest_groups(centroids: Matrix) -> Positions:
    """Return the nearest groups `[groups, neighbours]` of each group, itself included."""
    squares = np.einsum("ij,ij->i", centroids, centroids)
    count = min(_NEIGHBOURS, len(centroids))
    nearest = np.empty([len(centroids), count], np.int64)
    for start in range(0, len(centroids), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        far = squares - 2 * (centroids[part] @ centroids.T)
        own = np.arange(len(far))
        far[own, start + own] = -np.inf
        nearest[part] = np.argpartition(far, count - 1, axis=1)[:, :count]
    return nearest


def _fill_up(
    rows: Matrix, leaf_of: Positions, num_leaves: int, group_size: int, least: int
) -> None:
    """Bring the nearest rows that other leaves can spare to leaves with fewer than `least`."""
    sizes = np.bincount(leaf_of, minlength=num_leaves)
    if np.min(sizes) >= least:
        return
    centroids = leaf_means(rows, leaf_of, num_leaves)
    order = np.argsort(leaf_of, kind="stable")  # also by group, which no move changes
    starts = np.searchsorted(leaf_of[order], np.arange(0, num_leaves + 1, group_size))
    for leaf in np.flatnonzero(sizes < least).tolist():
        group = leaf // group_size
        near = order[starts[group] : starts[group + 1]]
        far = np.linalg.norm(rows[near] - centroids[leaf], axis=1)
        _bring(leaf, near[np.argsort(far, kind="stable")], leaf_of, sizes, least)
    for leaf in np.flatnonzero(sizes < least).tolist():  # its whole group is as empty
        _bring(leaf, np.flatnonzero(sizes[leaf_of] > least), leaf_of, sizes, least)


def _bring(
    leaf: int, candidates: Positions, leaf_of: Positions, sizes: Positions, least: int
) -> None:
    """Move candidates whose leaf can spare them, in order, until the leaf has `least`."""
    for row in candidates:
        if sizes[leaf] >= least:
            break
        if sizes[leaf_of[row]] > least:
            sizes[leaf_of[row]] -= 1
            sizes[leaf] += 1
            leaf_of[row] = leaf
