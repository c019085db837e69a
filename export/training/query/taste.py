"""Taste: the part of both towers that a user's history shows regardless of its order."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.towers.pooled import PooledPart
from shortlist.export.towers.trained import embed_part

__all__ = ["Taste", "expected_queries"]

Vectors = npt.NDArray[np.float32]

_RIDGE = 0.01  # relative to the mean square of a pooled history along one direction
_MOST_ROWS = 100_000  # more hardly change a matrix


@dataclass(frozen=True, eq=False)
class Taste:
    """Embeddings of users and candidates, and the linear map between both.

    Attributes:
        users: `[num_users, d]`, learned queries; zeros for users without interactions.
        candidates: `[num_candidates, d]`.
        transform: `[d, d]`, takes the sum of the embeddings of n candidates, divided by the root
            of n, to the query of a user who has them.
    """

    users: Vectors
    candidates: Vectors
    transform: Vectors

    @classmethod
    def of_rows(
        cls, queries: Vectors, candidates: Vectors, pairs: Pairs, *, num_users: int
    ) -> Self:
        """Fit the map to the rows of a training by ridge regression.

        Args:
            queries: `[num_rows, d]`, learned queries of users and of windows.
            candidates: `[num_candidates, d]`, learned embeddings.
            pairs: Candidates of each row.
            num_users: Number of rows, from the first one, that are users.
        """
        users = np.where(pairs.counts[:num_users, None] > 0, queries[:num_users], np.float32(0))
        transform = _transform(queries, candidates, pairs, np.flatnonzero(pairs.counts))
        return cls(users, candidates, transform)

    def arrays(self) -> tuple[Vectors, Vectors, Vectors]:
        """Return the arrays to store, which the constructor takes."""
        return self.users, self.candidates, self.transform

    def part(self, *, decay: float) -> PooledPart:
        """Return the part of a query tower that computes queries from histories."""
        return _pooled(self.transform, decay=decay)


def expected_queries(
    queries: Vectors, candidates: Vectors, pairs: Pairs, rows: npt.NDArray[np.int64]
) -> Vectors:
    """Return the queries that the histories of some rows let expect, from those of the others.

    Args:
        queries: `[num_rows, d]`, learned except for `rows`.
        candidates: `[num_candidates, d]`.
        pairs: Candidates of each row.
        rows: `[n]`.

    Returns:
        `[n, d]`; zeros for rows without candidates.
    """
    learned = np.setdiff1d(np.flatnonzero(pairs.counts), rows)
    part = _pooled(_transform(queries, candidates, pairs, learned), decay=1.0)
    histories = Histories(events=pairs, num_candidates=len(candidates))
    return embed_part(part, candidates, histories.take(rows))


def _transform(
    queries: Vectors, candidates: Vectors, pairs: Pairs, rows: npt.NDArray[np.int64]
) -> Vectors:
    """Fit the map from pooled histories to queries to some rows, or to a sample of them."""
    if len(rows) > _MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MOST_ROWS, replace=False))
    some = Histories(events=pairs, num_candidates=len(candidates)).take(rows)
    identity = np.ones(candidates.shape[1], np.float32)
    pooled = embed_part(_pooled(identity, decay=1.0), candidates, some).astype(np.float64)
    moments = pooled.T @ pooled
    moments[np.diag_indices(len(moments))] += _RIDGE * max(np.trace(moments), 1e-9) / len(moments)
    fitted: Vectors = np.linalg.solve(moments, pooled.T @ queries[rows]).astype(np.float32)
    return fitted


def _pooled(transform: Vectors, *, decay: float) -> PooledPart:
    columns = slice(0, len(transform))
    return PooledPart(columns, transform, decay=decay, normalized=True)
