"""Partition candidates into equally large leaves, by k-means from the top down."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.config import IvfConfig
from shortlist.export.index.rebalance import leaf_means, placed, rebalanced

__all__ = ["ROOM", "Partition", "RebuildError", "place_in_partition", "train_partition"]

Matrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

# Places per candidate: spare places let candidates choose leaves that suit them. 1.03 needs 6 %
# more rows for the same recall, 1.15 just as many.
ROOM = 1.08
_BRANCHES = 256
_ROWS_AT_ONCE = 4096  # rows of a product with up to 256 centres: 4 MB
_PLACES_AT_ONCE = 32_768
_SEED = 20
# New candidates without room in their nearest leaves, and share of all new ones, up to which
# leaves are kept: recall@10 of 1,000 like each other among 100,000 was 0.73 instead of 0.99.
_CROWDED, _CROWDED_SHARE = 16, 0.05


class RebuildError(Exception):
    """The leaves of a previous index do not suit the candidates; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Leaves with the same number of places, most of them occupied.

    Attributes:
        members: Int32 `[num_leaves, width]` positions; n in an empty place. Empty places
            come last, and no leaf is completely empty.
        centroids: Float32 `[num_leaves, d]`, the mean of each leaf.
        group_size: Number of consecutive leaves that are near each other, a divisor of
            num_leaves.
        num_candidates: Size of the corpus, n.
    """

    members: npt.NDArray[np.int32]
    centroids: Matrix
    group_size: int
    num_candidates: int

    def sizes(self) -> Positions:
        """Return the number of candidates in each leaf, int64 `[num_leaves]`."""
        return np.asarray(np.sum(self.members < self.num_candidates, axis=1))

    def groups(self) -> "Partition":
        """Return the groups of leaves as leaves; their empty places are anywhere."""
        count = len(self.members) // self.group_size
        weights = self.sizes().reshape(count, self.group_size, 1)
        centroids = self.centroids.reshape(count, self.group_size, -1)
        means = np.sum(weights * centroids, axis=1) / np.sum(weights, axis=1)
        return Partition(
            members=self.members.reshape(count, -1),
            centroids=means.astype(np.float32),
            group_size=count,
            num_candidates=self.num_candidates,
        )

    def spreads(self, candidate_embeddings: Matrix, moments: npt.NDArray[np.float64]) -> Matrix:
        """Return how far a leaf's scores lie from its centroid's, for queries of length 1.

        This is the standard deviation of the inner products with the difference from the
        centroid, over the leaf's members and over directions distributed like `moments`.

        Args:
            candidate_embeddings: `[n, d]` embeddings of all candidates.
            moments: Second moments `[d, d]` of vectors similar to the queries.

        Returns:
            Float32 `[num_leaves]`.
        """
        n = self.num_candidates
        weights = (moments / max(float(np.trace(moments)), 1e-30)).astype(np.float32)
        spreads = np.empty(len(self.members), np.float32)
        leaves = max(1, _PLACES_AT_ONCE // self.members.shape[1])
        for start in range(0, len(self.members), leaves):
            part = slice(start, start + leaves)
            members = self.members[part]
            rows = candidate_embeddings[np.minimum(members, n - 1)] - self.centroids[part, None]
            squares = np.einsum("lwd,lwd->lw", rows @ weights, rows) * (members < n)
            spreads[part] = np.sum(squares, axis=1) / np.sum(members < n, axis=1)
        return np.sqrt(np.maximum(spreads, 0))


def train_partition(
    candidate_embeddings: Matrix, num_leaves: int, config: IvfConfig, *, group_size: int = 0
) -> Partition:
    """Divide candidates into equally large leaves of near neighbours.

    k-means from the top down makes the leaves. Then each candidate moves to the best nearby
    leaf that has room: afterwards a fifth fewer leaves hold the same share of a query's
    answers. A million candidates take about 20 seconds of one core.

    Args:
        candidate_embeddings: `[n, d]`; equal rows and zeros are fine.
        num_leaves: Number of leaves, in 1..n, a multiple of `group_size`.
        config: Iterations and sample size of the training.
        group_size: Leaves per group; 0 for one group of all leaves.
    """
    n = len(candidate_embeddings)
    group_size = group_size or num_leaves
    groups = _tree(candidate_embeddings, num_leaves // group_size, config)
    leaf_of = np.empty(n, np.int64)
    for index, group in enumerate(groups):
        leaves = _tree(candidate_embeddings[group], group_size, config)
        for leaf, rows in enumerate(leaves):
            leaf_of[group[rows]] = index * group_size + leaf
    width = _width(n, num_leaves)
    leaf_of = rebalanced(
        candidate_embeddings, leaf_of, num_leaves, group_size=group_size, width=width
    )
    return _arranged(candidate_embeddings, leaf_of, [num_leaves, width], config, group_size)


def place_in_partition(
    candidate_embeddings: Matrix,
    members: npt.NDArray[np.int32],
    config: IvfConfig,
    *,
    group_size: int,
) -> Partition:
    """Give candidates without a place one in the leaves of others, which stay there.

    Leaves get wider if the corpus has grown. 100,000 candidates with 5,000 new ones take an
    eighth of the time of `train_partition`.

    Args:
        candidate_embeddings: `[n, d]`.
        members: `[num_leaves, width]` positions; n in an empty place, anywhere.
        config: As for `train_partition`.
        group_size: Number of consecutive leaves that are near each other.

    Raises:
        RebuildError: Too many new candidates belong into leaves that are full.
    """
    n = len(candidate_embeddings)
    num_leaves = len(members)
    leaf_of = np.full(n + 1, num_leaves, np.int64)
    leaf_of[members] = np.arange(num_leaves)[:, None]
    width = max(_width(n, num_leaves), members.shape[1])
    new = int(np.sum(leaf_of[:-1] == num_leaves))
    leaf_of, crowded = placed(
        candidate_embeddings, leaf_of[:-1], num_leaves, group_size=group_size, width=width
    )
    if crowded > max(_CROWDED, _CROWDED_SHARE * new):
        raise RebuildError(f"{crowded:,} of {new:,} new candidates find their nearest leaves full")
    return _arranged(candidate_embeddings, leaf_of, [num_leaves, width], config, group_size)


def _width(num_candidates: int, num_leaves: int) -> int:
    return num_candidates if num_leaves == 1 else math.ceil(num_candidates * ROOM / num_leaves)


def _arranged(
    rows: Matrix, leaf_of: Positions, shape: Sequence[int], config: IvfConfig, group_size: int
) -> Partition:
    """Return the partition `shape` of rows whose leaves are known."""
    num_leaves, n = shape[0], len(rows)
    centroids = leaf_means(rows, leaf_of, num_leaves)
    if group_size < num_leaves:
        # Leaves have moved, so group those that are near each other now.
        regrouped = np.argsort(np.concatenate(_tree(centroids, num_leaves // group_size, config)))
        leaf_of, centroids = regrouped[leaf_of], centroids[np.argsort(regrouped)]
    sizes = np.bincount(leaf_of, minlength=num_leaves)
    order = np.argsort(leaf_of, kind="stable")
    starts = np.cumsum(sizes) - sizes
    members = np.full(shape, n, np.int32)
    members[leaf_of[order], np.arange(n) - np.repeat(starts, sizes)] = order
    return Partition(
        members=members,
        centroids=centroids,
        group_size=group_size,
        num_candidates=n,
    )


def _tree(rows: Matrix, num_leaves: int, config: IvfConfig) -> list[Positions]:
    """Return at most `num_leaves` leaves with equally many rows; the last ones have fewer.

    k-means divides a node of the tree into up to 256 branches. Each gets room for a whole
    number of leaves, close to its share of rows; rows without room move to the branch that
    costs them least.
    """
    n = len(rows)
    width = -(-n // num_leaves)
    rng = np.random.default_rng(_SEED)
    done = []
    nodes = [(np.arange(n), -(-n // width))]
    while nodes:
        node, leaves = nodes.pop()
        if leaves == 1:
            done.append(node)
        else:
            branches = _divide(rows if len(node) == n else rows[node], leaves, width, config, rng)
            nodes += [(node[part], count) for part, count in branches]
    return done


def _divide(
    rows: Matrix, leaves: int, width: int, config: IvfConfig, rng: np.random.Generator
) -> list[tuple[Positions, int]]:
    """Return the branches of a node: positions of its rows and number of leaves to fill."""
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
    """Run Lloyd's algorithm on a sample; a centre without rows restarts at a random row."""
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
    """Return the nearest centre of each row and, on demand, the margin to the second one."""
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
    """Return leaves per branch, in proportion to its rows and never all for one branch."""
    shares = counts // width
    largest_remainders = np.argsort(-(counts % width), kind="stable")
    shares[largest_remainders[: leaves - int(np.sum(shares))]] += 1
    if np.max(shares) == leaves:
        first, second = np.argsort(-counts, kind="stable")[:2]
        shares[first], shares[second] = leaves - 1, 1
    return shares


def _assign(rows: Matrix, centres: Matrix, room: Positions) -> Positions:
    """Return the nearest branch with room for each row; the largest margins come first."""
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
