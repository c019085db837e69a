"""Partitions of candidates into leaves of one size, by k-means from the top down."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.config import IvfConfig

__all__ = ["Partition", "train_partition"]

Matrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_BRANCHES = 256
_ROWS_AT_ONCE = 4096  # of a product with up to 256 centres: 4 MB
_LEAVES_AT_ONCE = 256
_SEED = 20


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Leaves with the same number of places, fewer than `width` of them empty in all.

    Attributes:
        members: Int32 `[num_leaves, width]` positions; n where a place is empty. A leaf's
            empty places are its last, and no leaf is wholly empty.
        centroids: Float32 `[num_leaves, d]`, the mean of each leaf.
    """

    members: npt.NDArray[np.int32]
    centroids: Matrix

    def spreads(self, candidate_embeddings: Matrix, moments: npt.NDArray[np.float64]) -> Matrix:
        """How far a leaf's scores lie from its centroid's, for queries of length 1.

        The standard deviation, over the leaf's members and over directions distributed as
        `moments` says, of the inner products with the difference from the centroid.

        Args:
            candidate_embeddings: `[n, d]` that the leaves divide.
            moments: Second moments `[d, d]` of vectors like the queries.

        Returns:
            Float32 `[num_leaves]`.
        """
        n = len(candidate_embeddings)
        weights = (moments / max(float(np.trace(moments)), 1e-30)).astype(np.float32)
        spreads = np.empty(len(self.members), np.float32)
        for start in range(0, len(self.members), _LEAVES_AT_ONCE):
            part = slice(start, start + _LEAVES_AT_ONCE)
            members = self.members[part]
            rows = candidate_embeddings[np.minimum(members, n - 1)] - self.centroids[part, None]
            squares = np.einsum("lwd,lwd->lw", rows @ weights, rows) * (members < n)
            spreads[part] = np.sum(squares, axis=1) / np.sum(members < n, axis=1)
        return np.sqrt(np.maximum(spreads, 0))


def train_partition(candidate_embeddings: Matrix, num_leaves: int, config: IvfConfig) -> Partition:
    """Divides candidates into at most `num_leaves` leaves of near neighbours, all equally large.

    A node of the tree is divided by k-means into up to 256 branches. Each gets room for a
    whole number of leaves, next to what k-means gives it, and candidates that find no room
    go where they are the least worse off. A million candidates take some ten seconds.

    Args:
        candidate_embeddings: `[n, d]`; equal rows and zeros do no harm.
        num_leaves: Wanted, in 1..n.
        config: Says how long and on how many candidates to train.
    """
    n = len(candidate_embeddings)
    width = -(-n // num_leaves)
    leaves = -(-n // width)
    members = np.full([leaves, width], n, np.int32)
    centroids = np.empty([leaves, candidate_embeddings.shape[1]], np.float32)
    rng = np.random.default_rng(_SEED)
    done = 0
    nodes = [(np.arange(n), leaves)]
    while nodes:
        node, leaves = nodes.pop()
        if leaves == 1:
            members[done, : len(node)] = node
            centroids[done] = np.mean(candidate_embeddings[node], axis=0)
            done += 1
        else:
            rows = candidate_embeddings if len(node) == n else candidate_embeddings[node]
            nodes += [
                (node[part], count) for part, count in _divide(rows, leaves, width, config, rng)
            ]
    return Partition(members=members, centroids=centroids)


def _divide(
    rows: Matrix, leaves: int, width: int, config: IvfConfig, rng: np.random.Generator
) -> list[tuple[Positions, int]]:
    """Branches of a node: which of its rows, and how many leaves they are to fill."""
    everything = np.arange(len(rows))
    if np.array_equal(rows, np.broadcast_to(rows[0], rows.shape)):
        return [(everything[i * width : (i + 1) * width], 1) for i in range(leaves)]
    branches = min(leaves, _BRANCHES)
    centres = _k_means(rows, branches, config, rng)
    nearest, _ = _nearest(rows, centres)
    sizes = np.bincount(nearest, minlength=branches)
    if np.max(sizes) == len(rows):  # nearly all are equal
        cut = leaves // 2
        return [(everything[: cut * width], cut), (everything[cut * width :], leaves - cut)]
    counts = _apportion(sizes, leaves, width)
    branch_of = _assign(rows, centres, counts * width)
    order = np.argsort(branch_of, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(branch_of, minlength=branches))[:-1])
    return [(part, int(count)) for part, count in zip(parts, counts, strict=True) if count > 0]


def _k_means(rows: Matrix, branches: int, config: IvfConfig, rng: np.random.Generator) -> Matrix:
    """Lloyd's algorithm on a sample; a centre that loses all its rows starts again at one."""
    sample = max(config.training_sample, branches)
    if sample < len(rows):
        rows = rows[rng.choice(len(rows), sample, replace=False)]
    centres = rows[rng.choice(len(rows), branches, replace=False)]
    for _ in range(config.training_iterations):
        nearest, _ = _nearest(rows, centres)
        members = np.zeros([branches, len(rows)], np.float32)
        members[nearest, np.arange(len(rows))] = 1.0
        counts = np.bincount(nearest, minlength=branches)[:, None]
        fresh = rows[rng.integers(0, len(rows), branches)]
        centres = np.where(counts > 0, members @ rows / np.maximum(counts, 1), fresh)
        centres = centres.astype(np.float32)
    return centres


def _nearest(rows: Matrix, centres: Matrix, *, margins: bool = False) -> tuple[Positions, Matrix]:
    """The nearest centre of each row, and on demand by how much the next is worse."""
    offsets = 0.5 * np.einsum("ij,ij->i", centres, centres)
    nearest = np.empty(len(rows), np.int64)
    margin = np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        closeness = rows[part] @ centres.T - offsets
        nearest[part] = np.argmax(closeness, axis=1)
        if margins:
            best_two = np.partition(closeness, -2, axis=1)[:, -2:]
            margin[part] = best_two[:, 1] - best_two[:, 0]
    return nearest, margin


def _apportion(counts: Positions, leaves: int, width: int) -> Positions:
    """Leaves for each branch, in proportion to its rows and never all to one branch."""
    shares = counts // width
    largest_remainders = np.argsort(-(counts % width), kind="stable")
    shares[largest_remainders[: leaves - int(np.sum(shares))]] += 1
    if np.max(shares) == leaves:
        first, second = np.argsort(-counts, kind="stable")[:2]
        shares[first], shares[second] = leaves - 1, 1
    return shares


def _assign(rows: Matrix, centres: Matrix, room: Positions) -> Positions:
    """The nearest branch with room for each row; who would lose most by moving comes first."""
    branch_of = np.empty(len(rows), np.int64)
    left = np.arange(len(rows))
    room = room.copy()
    while len(left) > 0:
        branches = np.flatnonzero(room > 0)
        if len(branches) == 1:
            branch_of[left] = branches[0]
            break
        waiting = rows if len(left) == len(rows) else rows[left]
        nearest, margin = _nearest(waiting, centres[branches], margins=True)
        order = np.lexsort((-margin, nearest))
        nearest = nearest[order]
        rank = np.arange(len(order)) - np.searchsorted(nearest, nearest)
        taken = rank < room[branches][nearest]
        branch_of[left[order[taken]]] = branches[nearest[taken]]
        room[branches] -= np.bincount(nearest[taken], minlength=len(branches))
        left = np.sort(left[order[~taken]])
    return branch_of
