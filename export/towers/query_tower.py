"""The query tower of every servable: from a user, a history and features to a vector."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.histories import Histories, KeptEvents
from shortlist.export.towers.events import Events, EventTable, Request, joined, request_events
from shortlist.export.towers.feature_queries import FeatureQueries
from shortlist.export.towers.ids import IdLookup

__all__ = ["Embed", "QueryPart", "QueryTower"]

Vectors = npt.NDArray[np.float32]

# Embeddings float32 [m, d] of candidates at positions int32 [m].
Embed = Callable[[tf.Tensor], tf.Tensor]


class QueryPart(Protocol):
    """Some dimensions of a query, computed from events; TensorFlow must be able to track it."""

    dimension: int

    def __call__(self, embeddings: tf.Tensor, events: Events) -> tf.Tensor:
        """Return float32 `[batch, dimension]`; zeros for rows without events.

        Args:
            embeddings: Float32 `[m + 1, d]`, those of the events, all dimensions; the last row
                belongs to no event.
            events: Events of a batch of users.
        """

    def structure(self) -> dict[str, Any]:
        """Return its kind and what its variables do not tell, as JSON values."""


class QueryTower(tf.Module):
    """Queries of known and unknown users, with or without a history.

    A query is the concatenation of its parts, each computed from the user's events: those that
    the tower keeps, followed by those of the request. A known user may also have an own vector,
    which is added. A user of whom nothing is known gets the query of popular candidates. Features
    in the request add vectors of their own.

    Attributes:
        dimension: Length of a query, d.
        num_candidates: Size of the corpus.
        features: What the features of a request add; None if it takes none.
    """

    def __init__(
        self,
        user_ids: Sequence[str],
        *,
        known: npt.NDArray[np.bool_],
        popular: Vectors,
        num_candidates: int,
        parts: Sequence[QueryPart] = (),
        kept: Histories | KeptEvents | None = None,
        users: Vectors | None = None,
        features: FeatureQueries | None = None,
        feature_share: float = 0.0,
    ) -> None:
        """Copy all values.

        Args:
            user_ids: `[num_users]`, distinct.
            known: `[num_users]`, False for users that training never met.
            popular: `[d]`, query for a user of whom nothing is known.
            num_candidates: Size of the corpus.
            parts: Parts whose dimensions add up to d; none for a tower that ignores histories.
            kept: Events of each user to keep, `[num_users]`; None to keep none.
            users: `[num_users, <= d]`, added to the first dimensions of a known user's query.
            features: What the features of a request add, if it takes any.
            feature_share: Share of it that is added for users of whom more is known.
        """
        super().__init__(name="query_tower")
        self.dimension, self.num_candidates = len(popular), num_candidates
        self.features, self._feature_share = features, feature_share
        self._ids, self._num_users = IdLookup(user_ids), len(user_ids)
        self._known = tf.Variable(np.append(known, False), trainable=False)
        self._popular = tf.Variable(popular, trainable=False)
        self._parts = list(parts)
        self.kept = None if kept is None else EventTable(kept)
        self._users = None
        if users is not None:
            rows = np.concatenate([users, np.zeros_like(users[:1])])
            self._users = tf.Variable(rows, trainable=False)

    @classmethod
    def of_table(
        cls, user_ids: Sequence[str], queries: Vectors, unknown: Vectors, *, num_candidates: int
    ) -> Self:
        """Create a tower of one query per user `[num_users, d]`, and one for the others `[d]`."""
        known = np.ones(len(user_ids), np.bool_)
        return cls(
            user_ids, known=known, popular=unknown, num_candidates=num_candidates, users=queries
        )

    @property
    def reads_requests(self) -> bool:
        """Whether the history or the features of a request change a query."""
        return bool(self._parts) or self.features is not None

    def structure(self) -> dict[str, Any]:
        """Return what its variables do not tell, as JSON values; see `StoredQueryTower`."""
        return {
            "parts": [part.structure() for part in self._parts],
            "features": None if self.features is None else self.features.columns.as_json(),
            "feature_share": float(self._feature_share),
        }

    def without_events(self, user_ids: Sequence[str], queries: Vectors) -> "QueryTower":
        """Return a tower that keeps a query of each user `[num_users, d]` and no events."""
        return QueryTower(
            user_ids,
            known=self._known.numpy()[:-1],
            popular=self._popular.numpy(),
            num_candidates=self.num_candidates,
            parts=self._parts,
            users=queries,
            features=self.features,
            feature_share=self._feature_share,
        )

    def positions(self, user_ids: tf.Tensor) -> tf.Tensor:
        """Position of each user, int64 `[batch]`; -1 for users that training never met."""
        rows = self._ids(user_ids)
        known = tf.gather(tf.convert_to_tensor(self._known), rows)
        return tf.where(known, tf.cast(rows, tf.int64), tf.constant(-1, tf.int64))

    def __call__(self, embed: Embed, users: tf.Tensor, request: Request | None = None) -> tf.Tensor:
        """Return the queries of users with what they did since training.

        Args:
            embed: Embeddings of candidates.
            users: Int64 `[batch]`, positions; -1 for unknown users.
            request: History and features of each user; None if the request has only ids.

        Returns:
            Float32 `[batch, d]`.
        """
        events, features = self._kept_events(users), None
        if request is not None:
            features = request.features
            requested = request_events(request, self.num_candidates)
            events = requested if self.kept is None else joined(events, requested)
        return self.embed_events(embed, users, events, features)

    def known_features(self, features: tf.Tensor) -> tf.Tensor:
        """Return how many of the features `[batch, f]` add to the query, int32 `[batch]`."""
        if self.features is None:
            return tf.zeros([tf.shape(features)[0]], tf.int32)
        return self.features.known(features)

    def embed_events(
        self,
        embed: Embed,
        users: tf.Tensor,
        events: Events,
        features: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Return the queries of users with all that is known of them.

        Args:
            embed: Embeddings of candidates.
            users: Int64 `[batch]`, positions; -1 for unknown users.
            events: All events of each user.
            features: String `[batch, f]` of `name=value`; None if there are none.

        Returns:
            Float32 `[batch, d]`.
        """
        some = events.counts > 0
        rows = tf.where(users < 0, tf.constant(self._num_users, tf.int64), users)
        known = tf.gather(tf.convert_to_tensor(self._known), rows)
        queries = tf.zeros([tf.size(users), self.dimension])
        if self._parts:
            # One row more, so that there is always one to look up.
            embeddings = embed(tf.concat([events.positions, [0]], axis=0))
            queries = tf.concat([part(embeddings, events) for part in self._parts], axis=1)
        if self._users is not None:
            own = tf.gather(tf.convert_to_tensor(self._users), rows)
            queries += tf.pad(own, [[0, 0], [0, self.dimension - own.shape[1]]])
            some |= known
        queries = tf.where(some[:, None], queries, tf.convert_to_tensor(self._popular))
        if features is not None and self.features is not None:
            share = tf.where(some, self._feature_share, 1.0)
            queries += share[:, None] * self.features(features)
        return queries

    def _kept_events(self, users: tf.Tensor) -> Events:
        if self.kept is not None:
            return self.kept.events(users)
        return Events(
            splits=tf.zeros([tf.size(users) + 1], tf.int64),
            positions=tf.zeros([0], tf.int32),
            gaps=tf.zeros([0], tf.int32),
            weights=tf.zeros([0]),
        )
