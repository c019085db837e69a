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
from shortlist.export.towers.ids import IdLookup
from shortlist.export.towers.query_tower import QueryTower
from shortlist.export.towers.rating_head import RatingHead

__all__ = ["RetrievalServable"]

_FILTERS = (contract.FILTER_ANY, contract.FILTER_ALL, contract.FILTER_MIN, contract.FILTER_MAX)


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
        super().__init__()
        self._rating_head = rating_head
        # Queries of `similar`; None for the candidates' own embeddings.
        self._similar_queries = None
        if similar_queries is not None:
            self._similar_queries = tf.Variable(similar_queries, trainable=False)
        # First dimensions, in which near candidates are similar.
        self._taste_dimension = taste_dimension or index.dimension
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

    def signatures(self) -> dict[str, Any]:
        """Return concrete functions by signature name."""
        users = tf.TensorSpec([None], tf.string, name=contract.USER_ID)
        candidates = tf.TensorSpec([None], tf.string, name=contract.CANDIDATE_ID)
        signatures = {
            contract.SERVING_DEFAULT: _concrete(self._serving_default, users),
            contract.RETRIEVE: _concrete(
                self._retrieve,
                users,
                tf.TensorSpec([], tf.int32, name=contract.K),
                tf.TensorSpec([None, None], tf.string, name=contract.EXCLUDE),
                tf.TensorSpec([], tf.bool, name=contract.EXCLUDE_SEEN),
                *(tf.TensorSpec([None], tf.string, name=name) for name in _FILTERS),
            ),
            contract.RETRIEVE_BY_EMBEDDING: _concrete(
                self._retrieve_by_embedding,
                tf.TensorSpec(
                    [None, self._index.dimension], tf.float32, name=contract.QUERY_EMBEDDING
                ),
            ),
            contract.EMBED: _concrete(self._embed, users),
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
        retrieve = {
            contract.USER_ID: user,
            contract.K: np.int32(min(contract.DEFAULT_K, self.num_candidates)),
            contract.EXCLUDE: np.array([[candidate_id]], dtype=object),
            contract.EXCLUDE_SEEN: np.bool_(self._query_tower.kept is not None),
            **{name: np.array([], dtype=object) for name in _FILTERS},
        }
        embedding = self._queries(tf.constant(user, tf.string)).numpy()
        requests: dict[str, list[dict[str, Any]]] = {
            contract.SERVING_DEFAULT: [{contract.USER_ID: user}],
            contract.RETRIEVE: [retrieve],
            contract.RETRIEVE_BY_EMBEDDING: [{contract.QUERY_EMBEDDING: embedding}],
            contract.EMBED: [{contract.USER_ID: user}],
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
        answers = self._retrieve_by_embedding(self._queries(user_id))
        return {**answers, contract.KNOWN_USER: self._user_positions(user_id) >= 0}

    def _retrieve(
        self,
        user_id: tf.Tensor,
        k: tf.Tensor,
        exclude: tf.Tensor,
        exclude_seen: tf.Tensor,
        filter_any: tf.Tensor,
        filter_all: tf.Tensor,
        filter_min: tf.Tensor,
        filter_max: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        with tf.control_dependencies(
            [tf.debugging.Assert(k >= 1, ["k must be at least 1, got", k])]
        ):
            k = tf.minimum(k, self.num_candidates)
        user_positions = self._user_positions(user_id)
        excluded = self._excluded(user_positions, exclude, exclude_seen)
        queries = self._queries(user_id)
        conditions = (filter_any, filter_all, filter_min, filter_max)
        unfiltered = tf.reduce_all(tf.equal(tf.concat(conditions, axis=0), ""))
        scores, positions = tf.cond(
            unfiltered,
            lambda: search_excluding(self._index, queries, k, excluded),
            lambda: search_filtered(
                self._index, queries, k, excluded, self._filter.mask(*conditions)
            ),
        )
        answers = self._answers(scores, positions, None)
        return {**answers, contract.KNOWN_USER: user_positions >= 0}

    def _excluded(
        self, user_positions: tf.Tensor, exclude: tf.Tensor, exclude_seen: tf.Tensor
    ) -> tf.Tensor:
        """Return int32 `[batch, e]` positions that each row excludes; n excludes nothing."""
        batch, rows = tf.size(user_positions), tf.shape(exclude)[0]
        message = "exclude must have one row per user_id; users and rows:"
        with tf.control_dependencies([_check_equal(batch, rows, message)]):
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
            users = tf.where(user_positions < 0, unknown, user_positions)
            return seen.columns(users).to_tensor(default_value=self.num_candidates)

        nothing = tf.zeros([batch, 0], tf.int32)
        excluded = tf.cond(exclude_seen, seen_positions, lambda: nothing)
        return tf.concat([named, excluded], axis=1)

    def _retrieve_by_embedding(self, query_embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, positions = self._index.search(query_embedding, self.top_k)
        return self._answers(scores, positions, self.top_k)

    def _embed(self, user_id: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            contract.QUERY_EMBEDDING: self._queries(user_id),
            contract.KNOWN_USER: self._user_positions(user_id) >= 0,
            contract.SERVABLE_VERSION: self._versions(user_id),
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
        users, pairs = tf.size(user_id), tf.size(candidate_id)
        message = "rate needs one candidate_id per user_id; users and candidates:"
        with tf.control_dependencies([_check_equal(users, pairs, message)]):
            candidates = self._candidate_positions(candidate_id)
        known = tf.ensure_shape(candidates < self.num_candidates, [None])
        positions = self._user_positions(user_id)
        rating = self._rating_head(
            positions,
            self._queries(user_id)[:, : self._taste_dimension],
            candidates,
            self._taste(tf.where(known, candidates, 0)),
        )
        return {
            contract.RATING: tf.ensure_shape(rating, [None]),
            contract.KNOWN_USER: positions >= 0,
            contract.KNOWN_CANDIDATE: known,
            contract.SERVABLE_VERSION: self._versions(user_id),
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

    def _queries(self, user_id: tf.Tensor) -> tf.Tensor:
        queries = self._query_tower(self._index.embeddings, self._user_positions(user_id))
        return tf.ensure_shape(queries, [None, self._index.dimension])

    def _user_positions(self, user_id: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(self._query_tower.positions(user_id), [None])

    def _versions(self, like: tf.Tensor) -> tf.Tensor:
        """Return the version once per row, because answers over REST do not name it."""
        versions = tf.fill(tf.shape(like)[:1], tf.constant(self._version, tf.int64))
        return tf.ensure_shape(versions, [None])


def _check_equal(first: tf.Tensor, second: tf.Tensor, message: str) -> tf.Operation:
    return tf.debugging.Assert(tf.equal(first, second), [message, first, second])


def _concrete(function: Callable[..., dict[str, tf.Tensor]], *specs: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=specs).get_concrete_function()
