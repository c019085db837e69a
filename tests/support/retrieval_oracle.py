"""A small servable with whole numbers, requests to it, and what NumPy answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import IndexConfig
from shortlist.export.data.dataset import Attribute
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.index.build import build_index
from shortlist.export.servable.askers import KnownUsers
from shortlist.export.servable.corpus_shard import CorpusShard, corpus_table
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.towers.pooled import PooledPart
from shortlist.export.towers.query_tower import QueryTower
from shortlist.export.towers.rating_head import LinearRatingHead
from shortlist.export.towers.rating_means import RatingMeans
from shortlist.serving.repository.version import Shard

NUM_USERS, NUM_CANDIDATES, DIMENSION = 12, 90, 4
TOP_K = 15
VERSION = 7
GENRES = ("Comedy", "Drama", "Horror", "Silent")

USERS = [f"u{i}" for i in range(NUM_USERS)]
CANDIDATES = [f"c{i}" for i in range(NUM_CANDIDATES)]

# Small whole numbers: their products are exact, and many scores are equal.
_rng = np.random.default_rng(17)
QUERY_EMBEDDINGS = _rng.integers(-2, 3, (NUM_USERS, DIMENSION)).astype(np.float32)
CANDIDATE_EMBEDDINGS = _rng.integers(-2, 3, (NUM_CANDIDATES, DIMENSION)).astype(np.float32)
SEEN = [_rng.choice(NUM_CANDIDATES, 5 * i).tolist() for i in range(NUM_USERS)]  # some repeatedly
POPULAR = np.arange(DIMENSION, dtype=np.float32)  # query for whom nothing is known
CANDIDATE_GENRES = [
    tuple(genre for genre in GENRES[:3] if _rng.random() < 0.4) for _ in range(NUM_CANDIDATES)
]
YEARS = np.where(
    _rng.random(NUM_CANDIDATES) < 0.1, np.nan, _rng.integers(1990, 2000, NUM_CANDIDATES)
)


def query_tower(*, keep: bool) -> QueryTower:
    """Return a tower whose queries are whole numbers: that of the user and those of the events."""
    owners = np.repeat(np.arange(NUM_USERS), [len(events) for events in SEEN])
    columns = np.array([event for events in SEEN for event in events], np.int32)
    kept = Histories(
        events=Pairs.by_row(owners, columns, num_rows=NUM_USERS), num_candidates=NUM_CANDIDATES
    )
    return QueryTower(
        USERS,
        known=np.ones(NUM_USERS, np.bool_),
        popular=POPULAR,
        num_candidates=NUM_CANDIDATES,
        parts=[
            PooledPart(
                slice(0, DIMENSION),
                np.ones(DIMENSION, np.float32),
                decay=1.0,
                normalized=False,
            )
        ],
        kept=kept if keep else None,
        users=QUERY_EMBEDDINGS,
    )


TASTES = _rng.integers(-1, 2, (NUM_USERS, DIMENSION)).astype(np.float64)
MEANS = RatingMeans(
    mean=3.0,
    user_bias=_rng.integers(-4, 5, NUM_USERS) / 8,
    candidate_bias=_rng.integers(-4, 5, NUM_CANDIDATES) / 8,
    lowest=1.0,
    highest=5.0,
    strengths=(0.0, 0.0),
)


def servable(
    index: str,
    config: IndexConfig,
    *,
    keep_seen: bool = True,
    rates: bool = True,
    taste_dimension: int | None = None,
    similar_queries: np.ndarray | None = None,
    shard: Shard | None = None,
) -> dict[str, Any]:
    own = slice(None) if shard is None else shard.positions
    built = build_index(index, CANDIDATE_EMBEDDINGS[own], CANDIDATES[own], config)
    corpus = None if shard is None else CorpusShard(shard, corpus_table(CANDIDATE_EMBEDDINGS))
    embed = built.embeddings if corpus is None else corpus.embeddings
    return RetrievalServable(
        corpus=corpus,
        askers=KnownUsers(query_tower(keep=keep_seen), embed),
        index=built,
        candidate_ids=CANDIDATES,
        candidate_filter=CandidateFilter(
            {
                "genre": Attribute(values=tuple(CANDIDATE_GENRES)).take(own),
                "year": Attribute(numbers=YEARS).take(own),
            },
            built.num_candidates,
        ),
        version=VERSION,
        top_k=TOP_K,
        rating_head=LinearRatingHead(MEANS, TASTES) if rates else None,
        taste_dimension=taste_dimension,
        similar_queries=similar_queries,
    ).signatures()


@dataclass(frozen=True, kw_only=True)
class Request:
    users: list[str]
    k: int = 10
    exclude: list[list[str]] = field(default_factory=list)
    exclude_seen: bool = False
    filter_any: list[str] = field(default_factory=list)
    filter_all: list[str] = field(default_factory=list)
    filter_min: list[str] = field(default_factory=list)
    filter_max: list[str] = field(default_factory=list)

    def inputs(self) -> dict[str, tf.Tensor]:
        strings = {
            contract.USER_ID: self.users,
            contract.FILTER_ANY: self.filter_any,
            contract.FILTER_ALL: self.filter_all,
            contract.FILTER_MIN: self.filter_min,
            contract.FILTER_MAX: self.filter_max,
        }
        return {
            **{name: tf.constant(values, tf.string) for name, values in strings.items()},
            contract.K: tf.constant(self.k),
            contract.EXCLUDE: padded(self.exclude, ""),
            contract.EXCLUDE_SEEN: tf.constant(self.exclude_seen),
        }

    def query(self, row: int) -> np.ndarray:
        """Return the expected query of one of its users."""
        return embedding(self.users[row])

    def excluded(self, row: int) -> set[str]:
        """Return the candidate ids that the request excludes for one of its users."""
        user = self.users[row]
        seen = SEEN[USERS.index(user)] if self.exclude_seen and user in USERS else []
        return {*self.exclude[row], *(CANDIDATES[c] for c in seen)}

    def remaining(self, row: int) -> list[int]:
        """Return the positions that the request leaves to one of its users."""
        gone = self.excluded(row)
        return [c for c in range(NUM_CANDIDATES) if CANDIDATES[c] not in gone and self._allows(c)]

    def _allows(self, candidate: int) -> bool:
        has = {f"genre={genre}" for genre in CANDIDATE_GENRES[candidate]}
        any_of = [term for term in self.filter_any if term]
        return (
            (not any_of or bool(has & set(any_of)))
            and has >= {term for term in self.filter_all if term}
            and all(YEARS[candidate] >= _number(term) for term in self.filter_min if term)
            and all(YEARS[candidate] <= _number(term) for term in self.filter_max if term)
        )


@dataclass(frozen=True, kw_only=True)
class QueryRequest(Request):
    """With a history for each user; without weights all events have weight 1."""

    history: list[list[str]]
    weights: list[list[float]] | None = None
    exclude_history: bool = False

    def query_inputs(self) -> dict[str, tf.Tensor]:
        width = max(map(len, self.history), default=0)
        weights = tf.zeros([len(self.users), 0])
        if self.weights is not None:
            weights = tf.reshape(padded(self.weights, 0.0), [len(self.users), width])
        return {
            contract.USER_ID: tf.constant(self.users, tf.string),
            contract.HISTORY: padded(self.history, ""),
            contract.HISTORY_AGE: tf.zeros([len(self.users), 0]),
            contract.HISTORY_WEIGHT: weights,
            contract.FEATURES: tf.fill([len(self.users), 1], ""),
        }

    def inputs(self) -> dict[str, tf.Tensor]:
        exclude_history = tf.constant(self.exclude_history)
        return {
            **super().inputs(),
            **self.query_inputs(),
            contract.EXCLUDE_HISTORY: exclude_history,
        }

    def known(self, row: int) -> int:
        return sum(event in CANDIDATES for event in self.history[row])

    def query(self, row: int) -> np.ndarray:
        if not self.known(row):
            return embedding(self.users[row])
        query = embedding(self.users[row]) if self.users[row] in USERS else np.zeros(DIMENSION)
        weights = [1.0] * len(self.history[row]) if self.weights is None else self.weights[row]
        for event, weight in zip(self.history[row], weights, strict=True):
            if event in CANDIDATES:
                query = query + weight * CANDIDATE_EMBEDDINGS[CANDIDATES.index(event)]
        return query.astype(np.float32)

    def excluded(self, row: int) -> set[str]:
        return super().excluded(row) | (set(self.history[row]) if self.exclude_history else set())


def padded(rows: list[list[Any]], padding: Any) -> tf.Tensor:
    """Return a matrix of rows of the same length."""
    width = max(map(len, rows), default=0)
    flat = [value for row in rows for value in [*row, *[padding] * (width - len(row))]]
    dtype = tf.string if padding == "" else tf.float32
    return tf.reshape(tf.constant(flat, dtype), [len(rows), width])


def _number(term: str) -> float:
    return float(term.removeprefix("year="))


def embedding(user: str) -> np.ndarray:
    """Return the query of a user by id alone."""
    if user not in USERS:
        return POPULAR
    position = USERS.index(user)
    return QUERY_EMBEDDINGS[position] + CANDIDATE_EMBEDDINGS[SEEN[position]].sum(axis=0)


def best(query: np.ndarray, remaining: Sequence[int], width: int) -> tuple[list[str], list[float]]:
    """Return the expected row: best first, equal scores by position, padded."""
    scores = CANDIDATE_EMBEDDINGS @ query
    order = sorted(remaining, key=lambda c: (-scores[c], c))[:width]
    padding = width - len(order)
    return (
        [CANDIDATES[c] for c in order] + [""] * padding,
        [float(scores[c]) for c in order] + [-np.inf] * padding,
    )


def rows(outputs: dict[str, tf.Tensor]) -> tuple[list[list[str]], list[list[float]]]:
    ids = [[i.decode() for i in row] for row in outputs[contract.CANDIDATE_IDS].numpy()]
    return ids, outputs[contract.SCORES].numpy().tolist()


years = st.integers(1988, 2001).map(lambda year: f"year={year}")
genres = st.sampled_from([f"genre={genre}" for genre in GENRES] + [""])
candidates = st.sampled_from([*CANDIDATES, "nothing", ""])


@st.composite
def requests(draw: st.DrawFn) -> Request:
    users = draw(st.lists(st.sampled_from([*USERS, "unknown", ""]), max_size=4))
    return Request(
        users=users,
        k=draw(st.integers(1, NUM_CANDIDATES + 10)),
        exclude=[draw(st.lists(candidates, max_size=20)) for _ in users],
        exclude_seen=draw(st.booleans()),
        filter_any=draw(st.lists(genres, max_size=3)),
        filter_all=draw(st.lists(genres, max_size=2)),
        filter_min=draw(st.lists(years, max_size=2)),
        filter_max=draw(st.lists(years, max_size=2)),
    )


@st.composite
def query_requests(draw: st.DrawFn) -> QueryRequest:
    request = draw(requests())
    history = [draw(st.lists(candidates, max_size=8)) for _ in request.users]
    weights = [draw(st.lists(st.integers(1, 3), min_size=8, max_size=8)) for _ in request.users]
    weighted = [
        [float(weight) for _, weight in zip(events, row, strict=False)]
        for events, row in zip(history, weights, strict=True)
    ]
    return QueryRequest(
        **vars(request),
        history=history,
        weights=draw(st.sampled_from([None, weighted])),
        exclude_history=draw(st.booleans()),
    )
