"""The signatures of a servable: the same for every index."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.restricted import search_excluding, search_filtered
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.requests import (
    QUERY_INPUTS,
    REQUEST,
    check_equal,
    check_rows,
    example_query,
    read_request,
)
from shortlist.export.towers.events import Request
from shortlist.export.towers.ids import IdLookup
from shortlist.export.towers.query_tower import QueryTower
from shortlist.export.towers.rating_head import RatingHead

__all__ = ["RetrievalServable"]

_FILTERS = (contract.FILTER_ANY, contract.FILTER_ALL, contract.FILTER_MIN, contract.FILTER_MAX)
_OPTIONS = (
    tf.TensorSpec([], tf.int32, name=contract.K),
    tf.TensorSpec([None, None], tf.string, name=contract.EXCLUDE),
    tf.TensorSpec([], tf.bool, name=contract.EXCLUDE_SEEN),
    *(tf.TensorSpec([None], tf.string, name=name) for name in _FILTERS),
)


class RetrievalServable(tf.Module):
    """One version of one model, ready to be saved.

    Attributes:
        num_candidates: Size of the corpus, n.
        top_k: Answers per row of the signatures without k; at most n.
    """

    def __init__(
        self,
        *,
        query_tower: QueryTower,
        index: CandidateIndex,
        candidate_ids: Sequence[str],
        candidate_filter: CandidateFilter,
        version: int,
        top_k: int,
        rating_head: RatingHead | None = None,
        similar_queries: npt.NDArray[np.float32] | None = None,
        taste_dimension: int | None = None,
    ) -> None:
        """Put the parts of a servable together.

        Args:
            query_tower: Queries of users, histories and features; `exclude_seen` excludes the
                events that it keeps.
            index: Index over n candidates.
            candidate_ids: `[n]`, distinct.
            candidate_filter: Filter over their attributes.
            version: Version number that answers carry.
            top_k: Answers per row of the signatures without k.
            rating_head: Predicts ratings; None for no signature `rate`.
            similar_queries: `[n, taste_dimension]` queries of `similar`; None for the
                candidates' own embeddings.
            taste_dimension: First dimensions, in which near candidates are similar and which
                `rate` uses; None for all.
        """
        super().__init__()
        self._rating_head = rating_head
        self._taste_dimension = taste_dimension or index.dimension
        self._similar_queries = None
        if similar_queries is not None:
            self._similar_queries = tf.Variable(similar_queries, trainable=False)
        self._query_tower = query_tower
        self._index = index
        self._filter = candidate_filter
        self._version = version
        self.num_candidates = index.num_candidates
        self.top_k = min(top_k, self.num_candidates)
        self._candidate_positions = IdLookup(candidate_ids)
        # One row more than candidates: the position of padding gives the id of padding.
        ids = np.array([*candidate_ids, contract.PADDING_CANDIDATE_ID], dtype=object)
        self._candidate_ids = tf.Variable(ids, dtype=tf.string, trainable=False, name="ids")
        users = tf.TensorSpec([None], tf.int64)
        queries = tf.TensorSpec([None, index.dimension], tf.float32)
        done = tf.TensorSpec([None, None], tf.int32)
        self._queries = _Once(self._by_users, users)
        self._queries_after = _Once(self._by_requests, users, *REQUEST)
        self._restricted = _Once(self._search, users, queries, done, *_OPTIONS)

    def signatures(self) -> dict[str, Any]:
        """Return concrete functions by signature name."""
        users = tf.TensorSpec([None], tf.string, name=contract.USER_ID)
        candidates = tf.TensorSpec([None], tf.string, name=contract.CANDIDATE_ID)
        embedding = tf.TensorSpec(
            [None, self._index.dimension], tf.float32, name=contract.QUERY_EMBEDDING
        )
        exclude_history = tf.TensorSpec([], tf.bool, name=contract.EXCLUDE_HISTORY)
        signatures = {
            contract.SERVING_DEFAULT: _concrete(self._serving_default, users),
            contract.RETRIEVE: _concrete(self._retrieve, users, *_OPTIONS),
            contract.RETRIEVE_BY_EMBEDDING: _concrete(self._retrieve_by_embedding, embedding),
            contract.RETRIEVE_BY_QUERY: _concrete(
                self._retrieve_by_query, users, *QUERY_INPUTS, exclude_history, *_OPTIONS
            ),
            contract.EMBED: _concrete(self._embed, users),
            contract.EMBED_BY_QUERY: _concrete(self._embed_by_query, users, *QUERY_INPUTS),
            contract.SIMILAR: _concrete(self._similar, candidates),
        }
        if self._rating_head is not None:
            signatures[contract.RATE] = _concrete(self._rate, users, candidates)
        return signatures

    def example_requests(self, user_id: str, candidate_id: str) -> dict[str, list[dict[str, Any]]]:
        """Return requests that exercise every signature, to warm up a server.

        Returns:
            Requests by signature name; a request is NumPy arrays by input name.
        """
        user = np.array([user_id], dtype=object)
        options = {
            contract.K: np.int32(min(contract.DEFAULT_K, self.num_candidates)),
            contract.EXCLUDE_SEEN: np.bool_(self._query_tower.kept is not None),
            **{name: np.array([], dtype=object) for name in _FILTERS},
        }
        retrieve = {
            contract.USER_ID: user,
            contract.EXCLUDE: np.array([[candidate_id]], dtype=object),
            **options,
        }
        query = example_query(user_id, candidate_id)
        retrieve_by_query = {
            **query,
            contract.EXCLUDE: np.array([[""], [candidate_id]], dtype=object),
            contract.EXCLUDE_HISTORY: np.bool_(True),
            **options,
        }
        embedding = self._embed(tf.constant(user, tf.string))[contract.QUERY_EMBEDDING].numpy()
        requests: dict[str, list[dict[str, Any]]] = {
            contract.SERVING_DEFAULT: [{contract.USER_ID: user}],
            contract.RETRIEVE: [retrieve],
            contract.RETRIEVE_BY_EMBEDDING: [{contract.QUERY_EMBEDDING: embedding}],
            contract.RETRIEVE_BY_QUERY: [retrieve_by_query],
            contract.EMBED: [{contract.USER_ID: user}],
            contract.EMBED_BY_QUERY: [query],
            contract.SIMILAR: [{contract.CANDIDATE_ID: np.array([candidate_id], dtype=object)}],
        }
        if self._rating_head is not None:
            pairs = {  # the second pair is an unknown user and an unknown candidate
                contract.USER_ID: np.array([user_id, ""], dtype=object),
                contract.CANDIDATE_ID: np.array([candidate_id, ""], dtype=object),
            }
            requests[contract.RATE] = [pairs]
        return requests

    def _serving_default(self, user_id: tf.Tensor) -> dict[str, tf.Tensor]:
        users = self._user_positions(user_id)
        answers = self._retrieve_by_embedding(self._queries(users))
        return {**answers, contract.KNOWN_USER: users >= 0}

    def _retrieve(self, user_id: tf.Tensor, *options: tf.Tensor) -> dict[str, tf.Tensor]:
        users = self._user_positions(user_id)
        nothing = tf.zeros([tf.size(users), 0], tf.int32)
        return self._restricted(users, self._queries(users), nothing, *options)

    def _retrieve_by_query(
        self,
        user_id: tf.Tensor,
        history: tf.Tensor,
        history_age: tf.Tensor,
        history_weight: tf.Tensor,
        features: tf.Tensor,
        exclude_history: tf.Tensor,
        *options: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        users = self._user_positions(user_id)
        request = self._request(users, history, history_age, history_weight, features)
        nothing = tf.zeros([tf.size(users), 0], tf.int32)
        done = tf.cond(exclude_history, lambda: request.positions, lambda: nothing)
        answers = self._restricted(users, self._queries_after(users, *request), done, *options)
        return {**answers, **self._known(request)}

    def _search(
        self,
        users: tf.Tensor,
        queries: tf.Tensor,
        done: tf.Tensor,
        k: tf.Tensor,
        exclude: tf.Tensor,
        exclude_seen: tf.Tensor,
        *conditions: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Return answers without `done` int32 `[batch, e]` and what the options leave out."""
        with tf.control_dependencies(
            [tf.debugging.Assert(k >= 1, ["k must be at least 1, got", k])]
        ):
            k = tf.minimum(k, self.num_candidates)
        excluded = tf.concat([done, self._excluded(users, exclude, exclude_seen)], axis=1)
        unfiltered = tf.reduce_all(tf.equal(tf.concat(conditions, axis=0), ""))
        scores, positions = tf.cond(
            unfiltered,
            lambda: search_excluding(self._index, queries, k, excluded),
            lambda: search_filtered(
                self._index, queries, k, excluded, self._filter.mask(*conditions)
            ),
        )
        answers = self._answers(scores, positions, None)
        return {**answers, contract.KNOWN_USER: users >= 0}

    def _excluded(self, users: tf.Tensor, exclude: tf.Tensor, exclude_seen: tf.Tensor) -> tf.Tensor:
        """Return int32 `[batch, e]` positions that each row excludes; n excludes nothing."""
        batch = tf.size(users)
        with tf.control_dependencies([check_rows(contract.EXCLUDE, exclude, batch)]):
            named = self._candidate_positions(exclude)
        seen = self._query_tower.kept
        if seen is None:
            refuse = tf.debugging.Assert(
                tf.logical_not(exclude_seen),
                ["this version stores no seen candidates; export it without --without-seen"],
            )
            with tf.control_dependencies([refuse]):
                return tf.identity(named)

        def seen_positions() -> tf.Tensor:
            unknown = tf.cast(seen.num_rows, tf.int64)
            rows = tf.where(users < 0, unknown, users)
            return seen.columns(rows).to_tensor(default_value=self.num_candidates)

        nothing = tf.zeros([batch, 0], tf.int32)
        excluded = tf.cond(exclude_seen, seen_positions, lambda: nothing)
        return tf.concat([named, excluded], axis=1)

    def _retrieve_by_embedding(self, query_embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, positions = self._index.search(query_embedding, self.top_k)
        return self._answers(scores, positions, self.top_k)

    def _embed(self, user_id: tf.Tensor) -> dict[str, tf.Tensor]:
        users = self._user_positions(user_id)
        return self._embedded(users, self._queries(users))

    def _embed_by_query(self, user_id: tf.Tensor, *query: tf.Tensor) -> dict[str, tf.Tensor]:
        users = self._user_positions(user_id)
        request = self._request(users, *query)
        embedded = self._embedded(users, self._queries_after(users, *request))
        return {**embedded, **self._known(request)}

    def _embedded(self, users: tf.Tensor, queries: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            contract.QUERY_EMBEDDING: queries,
            contract.KNOWN_USER: users >= 0,
            contract.SERVABLE_VERSION: self._versions(users),
        }

    def _similar(self, candidate_id: tf.Tensor) -> dict[str, tf.Tensor]:
        own = self._candidate_positions(candidate_id)
        known = tf.ensure_shape(own < self.num_candidates, [None])
        rows = tf.where(known, own, 0)
        if self._similar_queries is None:
            queries = self._taste(rows)
        else:
            queries = tf.gather(tf.convert_to_tensor(self._similar_queries), rows)
        queries = tf.pad(queries, [[0, 0], [0, self._index.dimension - self._taste_dimension]])
        scores, positions = search_excluding(
            self._index, queries, tf.constant(self.top_k), own[:, None]
        )
        scores = tf.where(known[:, None], scores, contract.PADDING_SCORE)
        positions = tf.where(known[:, None], positions, self.num_candidates)
        answers = self._answers(scores, positions, self.top_k)
        return {**answers, contract.KNOWN_CANDIDATE: known}

    def _rate(self, user_id: tf.Tensor, candidate_id: tf.Tensor) -> dict[str, tf.Tensor]:
        assert self._rating_head is not None
        batch, pairs = tf.size(user_id), tf.size(candidate_id)
        message = "rate needs one candidate_id per user_id; users and candidates:"
        with tf.control_dependencies([check_equal(batch, pairs, message)]):
            candidates = self._candidate_positions(candidate_id)
        known = tf.ensure_shape(candidates < self.num_candidates, [None])
        users = self._user_positions(user_id)
        rating = self._rating_head(
            users,
            self._queries(users)[:, : self._taste_dimension],
            candidates,
            self._taste(tf.where(known, candidates, 0)),
        )
        return {
            contract.RATING: tf.ensure_shape(rating, [None]),
            contract.KNOWN_USER: users >= 0,
            contract.KNOWN_CANDIDATE: known,
            contract.SERVABLE_VERSION: self._versions(users),
        }

    def _answers(
        self, scores: tf.Tensor, positions: tf.Tensor, width: int | None
    ) -> dict[str, tf.Tensor]:
        ids = tf.gather(self._candidate_ids, positions)
        return {
            contract.CANDIDATE_IDS: tf.ensure_shape(ids, [None, width]),
            contract.SCORES: tf.ensure_shape(scores, [None, width]),
            contract.SERVABLE_VERSION: self._versions(scores),
        }

    def _taste(self, positions: tf.Tensor) -> tf.Tensor:
        """Return float32 `[m, taste_dimension]`, the part of embeddings that tells similarity."""
        return self._index.embeddings(positions)[:, : self._taste_dimension]

    def _user_positions(self, user_id: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(self._query_tower.positions(user_id), [None])

    def _request(self, users: tf.Tensor, *query: tf.Tensor) -> Request:
        return read_request(self._candidate_positions, tf.size(users), *query)

    def _known(self, request: Request) -> dict[str, tf.Tensor]:
        events = tf.cast(request.positions < self.num_candidates, tf.int32)
        features = self._query_tower.known_features(request.features)
        return {
            contract.KNOWN_HISTORY: tf.reduce_sum(events, axis=1),
            contract.KNOWN_FEATURES: tf.ensure_shape(features, [None]),
        }

    def _by_users(self, users: tf.Tensor) -> tf.Tensor:
        queries = self._query_tower(self._index.embeddings, users)
        return tf.ensure_shape(queries, [None, self._index.dimension])

    def _by_requests(self, users: tf.Tensor, *request: tf.Tensor) -> tf.Tensor:
        queries = self._query_tower(self._index.embeddings, users, Request(*request))
        return tf.ensure_shape(queries, [None, self._index.dimension])

    def _versions(self, like: tf.Tensor) -> tf.Tensor:
        """Return the version once per row, because answers over REST do not name it."""
        versions = tf.fill(tf.shape(like)[:1], tf.constant(self._version, tf.int64))
        return tf.ensure_shape(versions, [None])


class _Once:
    """A part of several signatures that is traced and stored once.

    Not a `tf.function` itself, because TensorFlow would store those of a module once more.
    """

    def __init__(self, function: Callable[..., Any], *specs: tf.TensorSpec) -> None:
        self._traced = tf.function(function, input_signature=specs, autograph=False)

    def __call__(self, *inputs: tf.Tensor) -> Any:
        return self._traced(*inputs)


def _concrete(function: Callable[..., dict[str, tf.Tensor]], *specs: tf.TensorSpec) -> Any:
    traced = tf.function(function, input_signature=specs, autograph=False)
    return traced.get_concrete_function()
