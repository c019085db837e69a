"""Embeddings of candidates that training never met."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve, eigh

from shortlist.export.data.dataset import Attribute
from shortlist.export.data.features import attribute_columns
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.sources.words import words_of

__all__ = ["SHARE", "ContentMap", "Newcomers", "Source", "Takers", "newcomer_rows"]

Vectors = npt.NDArray[np.float32]

# What the embedding of a new candidate follows from, the strongest first.
Source = Literal["embedding", "like", "interactions", "content", "nothing"]

SHARE: Final = 0.2  # measured by `shortlist bench unseen`
_RIDGE = 20.0
_K = 100  # length of the lists in which places are counted
_BATCH = 10_000  # candidates
_MOST_KNOWN = 100_000  # more hardly change the map
_MOST_COLUMNS = 4_000  # values and words; the most frequent ones
_EVENT = 0.2  # what one taker tells, relative to independent choices
_LIKE = 0.5  # share of the other's row in that of a candidate that is like it
_TINY = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Takers:
    """Users who took new candidates.

    Attributes:
        queries: Float32 `[p, d]`, query of each by what they did otherwise.
        candidates: Int64 `[p]`, which new candidate each took, in 0..m-1.
    """

    queries: Vectors
    candidates: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Newcomers:
    """Embeddings of new candidates.

    Attributes:
        rows: Float32 `[m, d]`.
        sources: `[m]`, what each follows from.
    """

    rows: Vectors
    sources: tuple[Source, ...]


def newcomer_rows(
    rows: Vectors,
    attributes: Mapping[str, Attribute],
    titles: Sequence[str] | None,
    *,
    counts: npt.NDArray[np.integer[Any]],
    queries: Vectors,
    seen: Pairs | None = None,
    given: Vectors | None = None,
    like: Vectors | None = None,
    takers: Takers | None = None,
    share: float | None = SHARE,
) -> Newcomers:
    """Return embeddings for candidates that training never met.

    Each follows from the strongest source that it has: an embedding that is given, a candidate
    that it is like, the users who took it, or its attributes and the words of its title.

    Args:
        rows: `[n, d]`, embeddings of the known candidates.
        attributes: Attributes of the known candidates, then of the new ones, n + m in all.
        titles: `[n + m]`, likewise; None if there are none.
        counts: `[n]`, number of events of each known candidate.
        queries: `[u, d]`, queries of some users.
        seen: `[u]` known candidates that each of these users has seen; None if unknown.
        given: `[m, d]`, NaN for new candidates without an embedding; None for none.
        like: `[m, d]`, embedding of the candidate that each new one is like, NaN for none; None
            for none at all.
        takers: Users who took new candidates since; None for none.
        share: See `ContentMap.fit`.
    """
    content = ContentMap.fit(
        rows, attributes, titles, counts=counts, queries=queries, seen=seen, share=share
    )
    result, described = content.rows.copy(), content.described
    sources: list[Source] = ["content" if some else "nothing" for some in described.tolist()]
    if takers is not None and len(takers.candidates):
        taken = np.unique(takers.candidates)
        result[taken] = content.with_takers(takers)[taken]
        for row in taken.tolist():
            sources[row] = "interactions"
    if like is not None:
        alike = np.flatnonzero(np.isfinite(like).all(axis=1))
        result[alike] = content.like(like)[alike]
        for row in alike.tolist():
            sources[row] = "like"
    if given is not None:
        there = np.flatnonzero(np.isfinite(given).all(axis=1))
        result[there] = given[there]
        for row in there.tolist():
            sources[row] = "embedding"
    return Newcomers(rows=result, sources=tuple(sources))


@dataclass(frozen=True, kw_only=True, eq=False)
class ContentMap:
    """What attributes and titles of candidates tell of their embeddings.

    Attributes:
        rows: Float32 `[m, d]`, embeddings of new candidates by their content; the mean of the
            known ones for those of whom nothing is known.
        described: Bool `[m]`, whether a new candidate has a value or word that known ones have.
        offset: What is added to their scores on average, so that they compete fairly.
        spread: `[d, r]`, root of the covariance of what content does not tell.
        queries: `[u, d]`, queries of some users.
    """

    rows: Vectors
    described: npt.NDArray[np.bool_]
    offset: float
    spread: npt.NDArray[np.float64]
    queries: Vectors

    @classmethod
    def fit(
        cls,
        rows: Vectors,
        attributes: Mapping[str, Attribute],
        titles: Sequence[str] | None,
        *,
        counts: npt.NDArray[np.integer[Any]],
        queries: Vectors,
        seen: Pairs | None = None,
        share: float | None = SHARE,
    ) -> Self:
        """Fit a linear map from content to embeddings to the known candidates.

        A regression predicts rows that are too close to their mean, and a list has room for the
        best only, so that predicted rows would reach few lists. Known candidates are therefore
        predicted as if they were new, each from all others, and moved in the direction of popular
        rows until they reach a share of the places in the best 100 that their own rows have.

        Args:
            rows: `[n, d]`, embeddings of the known candidates.
            attributes: Attributes of the known candidates, then of the new ones, n + m in all.
            titles: `[n + m]`, likewise; None if there are none.
            counts: `[n]`, number of events of each known candidate.
            queries: `[u, d]`, queries of some users.
            seen: `[u]` known candidates that each of these users has seen; None if unknown.
            share: Places of predicted candidates in the best 100 of these users, relative to
                those of their own rows; None to move none.
        """
        total = len(rows)
        sample = _sample(total)
        num_rows = _num_rows(attributes, titles, total)
        new = np.arange(total, num_rows)
        features = _features(attributes, titles, np.concatenate([sample, new]), len(sample))
        known, own = features[: len(sample)], features[len(sample) :]
        described = np.asarray(own[:, :-1].sum(axis=1)).ravel() > 0
        table = rows[sample].astype(np.float64)
        regression = _Regression(known, table)
        predicted = regression.unmet()
        offset, raised = 0.0, np.zeros(rows.shape[1])
        if share is not None:
            raised = _popularity(table, counts[sample], queries)
            offset = _offset(_Lists(rows, sample, queries, seen), predicted, raised, share=share)
        result = np.asarray(own @ regression.weights) + offset * raised
        result[~described] = rows.mean(axis=0, dtype=np.float64)
        return cls(
            rows=result.astype(np.float32),
            described=described,
            offset=offset,
            spread=_root(table - predicted),
            queries=queries,
        )

    def like(self, others: Vectors) -> Vectors:
        """Return the rows float32 `[m, d]` of new candidates that are each like another.

        They lie between the content's and the other's: users who took the other know it, so their
        queries fit its row better than they would fit one that resembles it.

        Args:
            others: `[m, d]`, embedding of the other candidate of each.
        """
        return self.rows + np.float32(_LIKE) * (others - self.rows)

    def with_takers(self, takers: Takers) -> Vectors:
        """Return the rows float32 `[m, d]` with what the takers of each candidate add.

        The content is a normal prior whose covariance is that of its errors. The takers of a
        candidate are more likely to be those with a high score for it: one step of Newton's
        method from the prior to the most likely row. So the weight of the takers rises with their
        number, fastest where content tells least.
        """
        rows = self.rows.astype(np.float64)
        counts = np.bincount(takers.candidates, minlength=len(rows)).astype(np.float64)
        taken = np.flatnonzero(counts)
        centre = self.queries.mean(axis=0, dtype=np.float64)
        sums = np.zeros_like(rows)
        np.add.at(sums, takers.candidates, takers.queries.astype(np.float64) - centre)
        centred = (self.queries - centre) @ self.spread
        values, vectors = eigh(centred.T @ centred / max(len(centred), 1))
        basis = self.spread @ vectors
        numbers = counts[taken, None] * _EVENT
        gain = 1.0 / (1.0 + numbers * np.maximum(values, 0.0))
        rows[taken] += (gain * (_EVENT * sums[taken] @ basis)) @ basis.T
        return rows.astype(np.float32)


class _Regression:
    """Ridge regression of rows on features, whose last column is 1."""

    def __init__(self, features: Any, table: npt.NDArray[np.float64]) -> None:
        self._features, self._table = features, table
        squares = (features.T @ features).toarray()
        penalty = np.full(len(squares), _RIDGE)
        penalty[-1] = _TINY  # the mean
        squares[np.diag_indices(len(squares))] += penalty
        self._inverse = cho_solve(cho_factor(squares), np.eye(len(squares)))
        self.weights: npt.NDArray[np.float64] = self._inverse @ (features.T @ table)

    def unmet(self) -> npt.NDArray[np.float64]:
        """Return the row of each candidate `[n, d]` as predicted from all others."""
        leverage = np.empty(len(self._table))
        for start in range(0, len(leverage), _BATCH):
            own = self._features[start : start + _BATCH]
            leverage[start : start + _BATCH] = np.asarray(
                own.multiply(own @ self._inverse).sum(axis=1)
            ).ravel()
        own = np.minimum(leverage, 1.0 - _TINY)[:, None]
        predicted: npt.NDArray[np.float64] = self._features @ self.weights
        return (predicted - own * self._table) / (1.0 - own)


def _sample(total: int) -> npt.NDArray[np.int64]:
    if total <= _MOST_KNOWN:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).choice(total, _MOST_KNOWN, replace=False))


def _num_rows(attributes: Mapping[str, Attribute], titles: Sequence[str] | None, total: int) -> int:
    lengths = {
        len(attribute.values if attribute.numbers is None else attribute.numbers)  # type: ignore[arg-type]
        for attribute in attributes.values()
    }
    lengths |= set() if titles is None else {len(titles)}
    if len(lengths) > 1 or min(lengths, default=total) < total:
        raise ValueError(
            f"attributes and titles must all have one row per candidate, got {sorted(lengths)} "
            f"rows for {total} known candidates and the new ones"
        )
    return max(lengths, default=total)


def _features(
    attributes: Mapping[str, Attribute],
    titles: Sequence[str] | None,
    rows: npt.NDArray[np.int64],
    num_known: int,
) -> Any:
    """Return a sparse matrix `[len(rows), f]`; its last column is 1.

    Columns are the values that known candidates have, the first `num_known` of the rows.
    """
    counted = np.arange(len(rows)) < num_known
    content = {name: attribute.take(rows) for name, attribute in sorted(attributes.items())}
    if titles is not None:
        texts = [titles[row] for row in rows.tolist()]
        content["title="] = Attribute(values=words_of(texts))  # no attribute has such a name
    tables = []
    for name, attribute in content.items():
        columns = attribute_columns(name, attribute, counted=counted)
        shape = (len(rows), len(columns.names))
        cells = np.unique(columns.rows * max(shape[1], 1) + columns.columns)
        tables.append(
            sparse.csr_matrix((np.ones(len(cells)), np.divmod(cells, max(shape[1], 1))), shape)
        )
    joined = sparse.hstack([*tables, np.ones((len(rows), 1))]).tocsr()
    counts = np.asarray(joined[:num_known].sum(axis=0)).ravel()
    most = np.sort(np.argsort(-counts, kind="stable")[: _MOST_COLUMNS + 1])
    most = np.append(most[most < joined.shape[1] - 1], joined.shape[1] - 1)
    return joined[:, most]


def _popularity(
    table: npt.NDArray[np.float64], counts: npt.NDArray[np.integer[Any]], queries: Vectors
) -> npt.NDArray[np.float64]:
    """Return how rows change with popularity `[d]`; its mean product with a query is 1.

    Zero if popularity does not raise scores, as between rows of one length.
    """
    popularity = np.log1p(counts.astype(np.float64))
    slope: npt.NDArray[np.float64] = (popularity - popularity.mean()) @ table
    raised = float(np.mean(queries @ slope)) if len(queries) else 0.0
    return slope / raised if raised > _TINY else np.zeros_like(slope)


class _Lists:
    """The score that a candidate needs for a place in the best of each of some users."""

    def __init__(
        self,
        rows: Vectors,
        sample: npt.NDArray[np.int64],
        queries: Vectors,
        seen: Pairs | None,
    ) -> None:
        self.queries, self._seen, self._sample = queries, seen, sample
        self._place = np.full(len(rows), -1)
        self._place[sample] = np.arange(len(sample))
        self.k = k = max(1, round(min(_K, len(rows) / 2) * len(sample) / len(rows)))
        table, self.needed = rows[sample].T, np.empty(len(queries))
        for user in range(len(queries)):
            scores = queries[user] @ table
            scores[self.seen_by(user)] = -np.inf
            self.needed[user] = np.partition(scores, -k)[-k]

    def seen_by(self, user: int) -> npt.NDArray[np.int64]:
        """Return which of the sampled candidates a user has seen."""
        if self._seen is None:
            return np.empty(0, np.int64)
        places = self._place[self._seen.of(user)]
        return places[places >= 0]


def _offset(
    lists: _Lists,
    predicted: npt.NDArray[np.float64],
    raised: npt.NDArray[np.float64],
    *,
    share: float,
) -> float:
    """Return the offset with which predicted rows reach this share of the places."""
    table = predicted.astype(np.float32).T
    most = max(1, round(share * lists.k * len(lists.queries)))
    lacking = np.empty(0)
    for user, query in enumerate(lists.queries):
        up = float(query @ raised)
        if up > _TINY and np.isfinite(lists.needed[user]):  # else the user has seen all
            missing = (lists.needed[user] - query @ table) / up
            missing[lists.seen_by(user)] = np.inf
            lacking = np.concatenate([lacking, missing])
            if len(lacking) > 4 * most:
                lacking = np.partition(lacking, most)[: most + 1]
    return float(np.sort(lacking)[min(most, len(lacking)) - 1]) if len(lacking) else 0.0


def _root(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a root `[d, d]` of the covariance of errors."""
    values, vectors = eigh(errors.T @ errors / max(len(errors), 1))
    root: npt.NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
