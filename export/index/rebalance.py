"""Move candidates to better leaves without filling or emptying a leaf too much."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["leaf_means", "placed", "rebalanced"]

Matrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_NEIGHBOURS = 32  # nearest groups in which a candidate looks for a leaf
_WISHES = 8  # leaves that a candidate may choose from, best first
_ROWS_AT_ONCE = 4096
_LEAVES_AT_ONCE = 4096
_WISHES_IF_FULL = 64  # of those that come when most places are taken
_FAR = np.float32(1e30)  # finite, so that distances can be subtracted
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
        leaves = _Leaves.of(candidate_embeddings, leaf_of, num_leaves, group_size)
        stay = _STAY * float(np.mean(leaves.squares[~leaves.empty]))
        wishes = _wishes(candidate_embeddings, leaf_of, leaves, _WISHES, stay=stay)
        leaf_of, _ = _settle(*wishes, leaf_of, np.full(num_leaves, width))
        _fill_up(
            candidate_embeddings, leaf_of, num_leaves, group_size, _least(leaf_of, leaves, width)
        )
    return leaf_of


def placed(
    candidate_embeddings: Matrix,
    leaf_of: Positions,
    num_leaves: int,
    *,
    group_size: int,
    width: int,
) -> tuple[Positions, int]:
    """Return a leaf for each candidate; those that have one stay.

    Except for the fewest that fill up leaves from which many were removed.

    Args:
        candidate_embeddings: `[n, d]`.
        leaf_of: `[n]`, leaf of each candidate; `num_leaves` if it has none yet.
        num_leaves: Number of leaves, at most n.
        group_size: Leaves per group.
        width: Places per leaf; all leaves together have at least n.

    Returns:
        Int64 `[n]`, as `rebalanced` does, and the number of candidates for which their nearest
        leaves have no room, so that fewer searches find them.
    """
    if num_leaves == 1:
        return np.zeros_like(leaf_of), 0
    leaf_of = leaf_of.copy()
    leaves = _Leaves.of(candidate_embeddings, leaf_of, num_leaves, group_size)
    waiting = np.flatnonzero(leaf_of == num_leaves)
    rows = candidate_embeddings[waiting]
    nearby = leaves.nearest_group(rows) * group_size
    room = width - np.bincount(leaf_of, minlength=num_leaves + 1)[:num_leaves]
    wishes = _wishes(rows, nearby, leaves, _WISHES_IF_FULL, stay=0.0)
    leaf_of[waiting], choice = _settle(*wishes, nearby, room)
    _fill_up(candidate_embeddings, leaf_of, num_leaves, group_size, _least(leaf_of, leaves, width))
    return leaf_of, int(np.sum(choice >= _WISHES))


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


@dataclass(frozen=True, kw_only=True)
class _Leaves:
    """Leaves and groups from which candidates choose.

    Attributes:
        centroids: `[num_leaves, d]`.
        empty: `[num_leaves]`, leaves without candidates.
        squares: `[num_leaves]`, squared lengths of the centroids, or `_FAR` for an empty leaf.
        groups: `[groups, d]`, means of the groups.
        near: `[groups, neighbours]`, the nearest groups of each, itself included.
    """

    centroids: Matrix
    empty: npt.NDArray[np.bool_]
    squares: Matrix
    groups: Matrix
    near: Positions

    @classmethod
    def of(cls, rows: Matrix, leaf_of: Positions, num_leaves: int, group_size: int) -> "_Leaves":
        """Describe the leaves; rows in leaf `num_leaves` do not count."""
        centroids = leaf_means(rows, leaf_of, num_leaves + 1)[:-1]
        empty = np.bincount(leaf_of, minlength=num_leaves + 1)[:-1] == 0
        count = num_leaves // group_size
        groups = leaf_means(rows, leaf_of // group_size, count + 1)[:-1]
        return cls(
            centroids=centroids,
            empty=empty,
            squares=np.where(empty, _FAR, np.einsum("ij,ij->i", centroids, centroids)),
            groups=groups,
            near=_nearest_groups(groups),
        )

    @property
    def group_size(self) -> int:
        return len(self.centroids) // len(self.groups)

    def nearest_group(self, rows: Matrix) -> Positions:
        """Return the nearest group of each row, of those that are not empty."""
        empty = self.empty.reshape(len(self.groups), -1).all(axis=1)
        squares = np.where(empty, _FAR, np.einsum("ij,ij->i", self.groups, self.groups))
        nearest = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            nearest[part] = np.argmin(squares - 2 * (rows[part] @ self.groups.T), axis=1)
        return nearest


def _least(leaf_of: Positions, leaves: _Leaves, width: int) -> int:
    return max(1, min(-(-width // 2), len(leaf_of) // len(leaves.centroids)))


def _settle(
    wishes: npt.NDArray[np.int32], distances: Matrix, leaf_of: Positions, room: Positions
) -> tuple[Positions, Positions]:
    """Give each row its first wish that no row with a larger margin takes, or a nearby leaf.

    Args:
        wishes: Leaves `[m, wishes]` and their distances, see `_wishes`.
        distances: `[m, wishes]`.
        leaf_of: `[m]`, a leaf near each row.
        room: `[num_leaves]`, places for rows; together at least m.

    Returns:
        Leaves `[m]`, and the number of each row's wishes that were refused.
    """
    num_leaves = len(room)
    margins = np.diff(distances, axis=1, append=distances[:, -1:])
    choice = np.zeros(len(wishes), np.int64)
    moved = np.full(len(wishes), num_leaves, np.int64)  # no leaf yet
    asking = np.arange(len(wishes))
    while len(asking) > 0:
        asked = np.zeros(num_leaves + 1, bool)
        asked[wishes[asking, choice[asking]]] = True
        rivals = np.concatenate([np.flatnonzero(asked[moved]), asking])
        leaves = wishes[rivals, choice[rivals]]
        order = np.lexsort((rivals, -margins[rivals, choice[rivals]], leaves))
        rivals, leaves = rivals[order], leaves[order]
        taken = np.arange(len(order)) - np.searchsorted(leaves, leaves) < room[leaves]
        moved[rivals[taken]] = leaves[taken]
        refused = rivals[~taken]
        moved[refused] = num_leaves
        choice[refused] += 1
        asking = refused[choice[refused] < wishes.shape[1]]
    left = room - np.bincount(moved, minlength=num_leaves + 1)[:num_leaves]
    waiting = np.flatnonzero(moved == num_leaves)
    # In the order of leaves, because neighbours have neighbouring numbers.
    waiting = waiting[np.argsort(leaf_of[waiting], kind="stable")]
    places = np.repeat(np.arange(num_leaves), left)
    nearby = np.searchsorted(places, leaf_of[waiting])
    ranks = np.arange(len(waiting))
    # Strictly increasing, close to the current leaf, and within the places.
    nearby = np.maximum.accumulate(nearby - ranks) + ranks
    nearby = np.minimum(nearby, len(places) - len(waiting) + ranks)
    moved[waiting] = places[nearby]
    return moved, choice


def _wishes(
    rows: Matrix, leaf_of: Positions, leaves: _Leaves, most: int, *, stay: float
) -> tuple[npt.NDArray[np.int32], Matrix]:
    """Return the nearest leaves of each row, in the group of its leaf and the nearest others.

    Args:
        rows: `[m, d]`.
        leaf_of: `[m]`, a leaf near each row.
        leaves: The leaves to choose from.
        most: Number of wishes, fewer if there are fewer leaves nearby.
        stay: Squared distance by which another leaf must be nearer than that one.

    Returns:
        Leaves `[m, wishes]`, nearest first, and squared distances minus the row's square.
    """
    near, group_size = leaves.near, leaves.group_size
    num_leaves, groups = len(leaves.centroids), len(near)
    count = min(most, near.shape[1] * group_size)
    wishes = np.empty([len(rows), count], np.int32)
    distances = np.empty([len(rows), count], np.float32)
    order = np.argsort(leaf_of, kind="stable")
    starts = np.searchsorted(leaf_of[order], np.arange(0, num_leaves + 1, group_size))
    for group in range(groups):
        choices = (near[group, :, None] * group_size + np.arange(group_size)).ravel()
        for start in range(starts[group], starts[group + 1], _ROWS_AT_ONCE):
            here = order[start : min(start + _ROWS_AT_ONCE, starts[group + 1])]
            far = leaves.squares[choices] - 2 * (rows[here] @ leaves.centroids[choices].T)
            far = np.where(choices == leaf_of[here, None], far - stay, far)
            best = np.argpartition(far, count - 1, axis=1)[:, :count]
            far = np.take_along_axis(far, best, axis=1)
            by_distance = np.argsort(far, axis=1, kind="stable")
            wishes[here] = choices[np.take_along_axis(best, by_distance, axis=1)]
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
