"""The signatures of a servable: the same for every index."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.restricted import search_excluding, search_filtered
from shortlist.export.index.similarity import DotProduct, Similarity
from shortlist.export.servable.askers import Askers, KnownUsers
from shortlist.export.servable.corpus_shard import CorpusShard
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.requests import (
    QUERY_INPUTS,
    check_equal,
    check_rows,
    example_query,
    read_request,
)
from shortlist.export.servable.tracing import Once, concrete
from shortlist.export.towers.events import Request
from shortlist.export.towers.ids import IdLookup
from shortlist.export.towers.pair_table import PairTable
from shortlist.export.towers.rating_head import RatingHead

__all__ = ["TOWERS_FORMAT", "RetrievalServable"]

TOWERS_FORMAT = 1  # of `structure`

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
        top_k: Answers per row of the signatures without k; at most the size of the index.
    """

    def __init__(
        self,
        *,
        askers: Askers,
        index: CandidateIndex,
        candidate_ids: Sequence[str],
        candidate_filter: CandidateFilter,
        version: int,
        top_k: int,
        similarity: Similarity | None = None,
        rating_head: RatingHead | None = None,
        similar_queries: npt.NDArray[np.float32] | None = None,
        taste_dimension: int | None = None,
        corpus: CorpusShard | None = None,
    ) -> None:
        """Put the parts of a servable together.

        Args:
            askers: Queries of those who ask; `KnownUsers` also answer to histories and features,
                and `exclude_seen` excludes the events that they keep.
            index: Index over n candidates, or over those of a shard.
            candidate_ids: `[n]`, distinct.
            candidate_filter: Filter over their attributes.
            version: Version number that answers carry.
            top_k: Answers per row of the signatures without k.
            similarity: Similarity that the index was built for; None for the inner product.
            rating_head: Predicts ratings by known users; None for no signature `rate`.
            similar_queries: `[n, taste_dimension]` queries of `similar`; None for the
                candidates' own embeddings.
            taste_dimension: First dimensions, in which near candidates are similar and which
                `rate` uses; None for all.
            corpus: The corpus, if the index holds a shard of it.
        """
        super().__init__()
        self._similarity = similarity or DotProduct(index.dimension)
        self._rating_head = rating_head
        self._taste_dimension = taste_dimension or self._similarity.dimension
        self._similar_queries = None
        if similar_queries is not None:
            self._similar_queries = tf.Variable(similar_queries, trainable=False)
        self._askers = askers
        self._known_users = askers if isinstance(askers, KnownUsers) else None
        self._index = index
        self._filter = candidate_filter
        self._version = version
        self._corpus = corpus
        self._embeddings = index.embeddings if corpus is None else corpus.embeddings
        self.num_candidates = len(candidate_ids)
        self.top_k = min(top_k, index.num_candidates)
        self._candidate_positions = IdLookup(candidate_ids)
        own_ids = candidate_ids if corpus is None else candidate_ids[corpus.shard.positions]
        # One row more than candidates: the position of padding gives the id of padding.
        ids = np.array([*own_ids, contract.PADDING_CANDIDATE_ID], dtype=object)
        self._candidate_ids = tf.Variable(ids, dtype=tf.string, trainable=False, name="ids")
        users = tf.TensorSpec([None], tf.int64)
        queries = tf.TensorSpec([None, self._similarity.dimension], tf.float32)
        done = tf.TensorSpec([None, None], tf.int32)
        self._restricted = Once(self._search, users, queries, done, *_OPTIONS)

    def signatures(self) -> dict[str, Any]:
        """Return concrete functions by signature name."""
        asked = self._askers.inputs
        candidates = tf.TensorSpec([None], tf.string, name=contract.CANDIDATE_ID)
        embedding = tf.TensorSpec(
            [None, self._similarity.dimension], tf.float32, name=contract.QUERY_EMBEDDING
        )
        exclude_history = tf.TensorSpec([], tf.bool, name=contract.EXCLUDE_HISTORY)
        signatures = {
            contract.SERVING_DEFAULT: concrete(self._serving_default, *asked),
            contract.RETRIEVE: concrete(self._retrieve, *asked, *_OPTIONS),
            contract.RETRIEVE_BY_EMBEDDING: concrete(self._retrieve_by_embedding, embedding),
            contract.EMBED: concrete(self._embed, *asked),
            contract.SIMILAR: concrete(self._similar, candidates),
        }
        if self._reads_requests:
            signatures[contract.RETRIEVE_BY_QUERY] = concrete(
                self._retrieve_by_query, *asked, *QUERY_INPUTS, exclude_history, *_OPTIONS
            )
            signatures[contract.EMBED_BY_QUERY] = concrete(
                self._embed_by_query, *asked, *QUERY_INPUTS
            )
        if self._rating_head is not None:
            signatures[contract.RATE] = concrete(self._rate, *asked, candidates)
        return signatures

    def structure(self) -> dict[str, Any] | None:
        """Return what its variables do not tell of the towers, as JSON values.

        None if the towers are not ours, so that no version can be made from this one.
        """
        if self._known_users is None:
            return None
        head = self._rating_head
        return {
            "format": TOWERS_FORMAT,
            "query_tower": self._known_users.structure(),
            "rating_head": None if head is None else head.structure(),
            "taste_dimension": self._taste_dimension,
        }

    def example_requests(
        self, asked: Mapping[str, npt.NDArray[Any]], candidate_id: str
    ) -> dict[str, list[dict[str, Any]]]:
        """Return requests that exercise every signature, to warm up a server.

        Args:
            asked: One row of the inputs that say who asks, by input name.
            candidate_id: Id of a candidate.

        Returns:
            Requests by signature name; a request is NumPy arrays by input name.
        """
        options = {
            contract.K: np.int32(min(contract.DEFAULT_K, self._index.num_candidates)),
            contract.EXCLUDE_SEEN: np.bool_(self._seen is not None),
            **{name: np.array([], dtype=object) for name in _FILTERS},
        }
        exclude = {contract.EXCLUDE: np.array([[candidate_id]], dtype=object)}
        tensors = [tf.constant(asked[spec.name], spec.dtype) for spec in self._askers.inputs]
        embedding = self._embed(*tensors)[contract.QUERY_EMBEDDING].numpy()
        requests: dict[str, list[dict[str, Any]]] = {
            contract.SERVING_DEFAULT: [dict(asked)],
            contract.RETRIEVE: [{**asked, **exclude, **options}],
            contract.RETRIEVE_BY_EMBEDDING: [{contract.QUERY_EMBEDDING: embedding}],
            contract.EMBED: [dict(asked)],
            contract.SIMILAR: [{contract.CANDIDATE_ID: np.array([candidate_id], dtype=object)}],
        }
        if self._reads_requests:
            query = example_query(asked[contract.USER_ID][0], candidate_id)
            retrieve_by_query = {
                **query,
                contract.EXCLUDE: np.array([[""], [candidate_id]], dtype=object),
                contract.EXCLUDE_HISTORY: np.bool_(True),
                **options,
            }
            requests[contract.RETRIEVE_BY_QUERY] = [retrieve_by_query]
            requests[contract.EMBED_BY_QUERY] = [query]
        if self._rating_head is not None:
            pairs = {  # the second pair is an unknown user and an unknown candidate
                contract.USER_ID: np.append(asked[contract.USER_ID], ""),
                contract.CANDIDATE_ID: np.array([candidate_id, ""], dtype=object),
            }
            requests[contract.RATE] = [pairs]
        return requests

    @property
    def _reads_requests(self) -> bool:
        return self._known_users is not None and self._known_users.reads_requests

    @property
    def _seen(self) -> PairTable | None:
        return None if self._known_users is None else self._known_users.kept

    def _serving_default(self, *asked: tf.Tensor) -> dict[str, tf.Tensor]:
        users, queries = self._ask(*asked)
        return {**self._retrieve_by_embedding(queries), **_known(users)}

    def _retrieve(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        count = len(self._askers.inputs)
        users, queries = self._ask(*inputs[:count])
        return self._restrict(users, queries, None, *inputs[count:])

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
        assert self._known_users is not None
        users = self._known_users.users(user_id)
        request = self._request(users, history, history_age, history_weight, features)
        queries = self._known_users.queries_after(users, request)
        nothing = tf.zeros([tf.size(users), 0], tf.int32)
        done = tf.cond(exclude_history, lambda: request.positions, lambda: nothing)
        answers = self._restrict(users, queries, done, *options)
        return {**answers, **self._known_parts(request)}

    def _ask(self, *asked: tf.Tensor) -> tuple[tf.Tensor | None, tf.Tensor]:
        """Return the positions of users, None if none is known, and their queries."""
        users = self._askers.users(*asked)
        return users, self._askers.queries(users, *asked)

    def _restrict(
        self,
        users: tf.Tensor | None,
        queries: tf.Tensor,
        done: tf.Tensor | None,
        *options: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        batch = tf.shape(queries)[0]
        positions = tf.fill([batch], tf.constant(-1, tf.int64)) if users is None else users
        if done is None:
            done = tf.zeros([batch, 0], tf.int32)
        return {**self._restricted(positions, queries, done, *options), **_known(users)}

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
            k = tf.minimum(k, self._index.num_candidates)
        excluded = tf.concat([done, self._excluded(users, exclude, exclude_seen)], axis=1)
        excluded = self._in_index(excluded)
        unfiltered = tf.reduce_all(tf.equal(tf.concat(conditions, axis=0), ""))
        rows = self._similarity.query(queries)
        products, positions = tf.cond(
            unfiltered,
            lambda: search_excluding(self._index, rows, k, excluded),
            lambda: search_filtered(self._index, rows, k, excluded, self._filter.mask(*conditions)),
        )
        return self._answers(self._similarity.score(products, queries), positions, None)

    def _excluded(self, users: tf.Tensor, exclude: tf.Tensor, exclude_seen: tf.Tensor) -> tf.Tensor:
        """Return int32 `[batch, e]` positions that each row excludes; n excludes nothing."""
        batch = tf.size(users)
        with tf.control_dependencies([check_rows(contract.EXCLUDE, exclude, batch)]):
            named = self._candidate_positions(exclude)
        seen = self._seen
        if seen is None:
            refuse = tf.debugging.Assert(
                tf.logical_not(exclude_seen),
                ["this version stores no seen candidates; name them in exclude instead"],
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
        rows = self._similarity.query(query_embedding)
        products, positions = self._index.search(rows, self.top_k)
        scores = self._similarity.score(products, query_embedding)
        return self._answers(scores, positions, self.top_k)

    def _embed(self, *asked: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._embedded(*self._ask(*asked))

    def _embed_by_query(self, user_id: tf.Tensor, *query: tf.Tensor) -> dict[str, tf.Tensor]:
        assert self._known_users is not None
        users = self._known_users.users(user_id)
        request = self._request(users, *query)
        embedded = self._embedded(users, self._known_users.queries_after(users, request))
        return {**embedded, **self._known_parts(request)}

    def _embedded(self, users: tf.Tensor | None, queries: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            contract.QUERY_EMBEDDING: queries,
            **_known(users),
            contract.SERVABLE_VERSION: self._versions(queries),
        }

    def _similar(self, candidate_id: tf.Tensor) -> dict[str, tf.Tensor]:
        own = self._candidate_positions(candidate_id)
        known = tf.ensure_shape(own < self.num_candidates, [None])
        rows = tf.where(known, own, 0)
        if self._similar_queries is None:
            queries = self._taste(rows)
        else:
            queries = tf.gather(tf.convert_to_tensor(self._similar_queries), rows)
        width = self._similarity.dimension
        queries = tf.pad(queries, [[0, 0], [0, width - self._taste_dimension]])
        products, positions = search_excluding(
            self._index,
            self._similarity.query(queries),
            tf.constant(self.top_k),
            self._in_index(own)[:, None],
        )
        scores = self._similarity.score(products, queries)
        scores = tf.where(known[:, None], scores, contract.PADDING_SCORE)
        positions = tf.where(known[:, None], positions, self._index.num_candidates)
        answers = self._answers(scores, positions, self.top_k)
        return {**answers, contract.KNOWN_CANDIDATE: known}

    def _rate(self, user_id: tf.Tensor, candidate_id: tf.Tensor) -> dict[str, tf.Tensor]:
        assert self._rating_head is not None
        assert self._known_users is not None
        batch, pairs = tf.size(user_id), tf.size(candidate_id)
        message = "rate needs one candidate_id per user_id; users and candidates:"
        with tf.control_dependencies([check_equal(batch, pairs, message)]):
            candidates = self._candidate_positions(candidate_id)
        known = tf.ensure_shape(candidates < self.num_candidates, [None])
        users = self._known_users.users(user_id)
        rating = self._rating_head(
            users,
            self._known_users.queries(users)[:, : self._taste_dimension],
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
        vectors = self._similarity.vectors(self._embeddings(positions))
        return vectors[:, : self._taste_dimension]

    def _in_index(self, positions: tf.Tensor) -> tf.Tensor:
        """Return positions in the index for positions in the corpus."""
        return positions if self._corpus is None else self._corpus.own(positions)

    def _request(self, users: tf.Tensor, *query: tf.Tensor) -> Request:
        return read_request(self._candidate_positions, tf.size(users), *query)

    def _known_parts(self, request: Request) -> dict[str, tf.Tensor]:
        events = tf.cast(request.positions < self.num_candidates, tf.int32)
        assert self._known_users is not None
        features = self._known_users.known_features(request.features)
        return {
            contract.KNOWN_HISTORY: tf.reduce_sum(events, axis=1),
            contract.KNOWN_FEATURES: tf.ensure_shape(features, [None]),
        }

    def _versions(self, like: tf.Tensor) -> tf.Tensor:
        """Return the version once per row, because answers over REST do not name it."""
        versions = tf.fill(tf.shape(like)[:1], tf.constant(self._version, tf.int64))
        return tf.ensure_shape(versions, [None])


def _known(users: tf.Tensor | None) -> dict[str, tf.Tensor]:
    return {} if users is None else {contract.KNOWN_USER: users >= 0}
