"""Who asks a servable, and with which query."""

from typing import Any, Protocol

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.servable.requests import REQUEST
from shortlist.export.servable.tracing import Once
from shortlist.export.towers.events import Request
from shortlist.export.towers.pair_table import PairTable
from shortlist.export.towers.query_tower import Embed, QueryTower

__all__ = ["Askers", "KnownUsers"]


class Askers(Protocol):
    """Reads the inputs that say who asks; TensorFlow must be able to track it.

    Attributes:
        inputs: Inputs of a request, each with one row per query.
    """

    inputs: tuple[tf.TensorSpec, ...]

    def users(self, *asked: tf.Tensor) -> tf.Tensor | None:
        """Return the position of each user, int64 `[batch]`, -1 if unknown; None if none is."""

    def queries(self, users: tf.Tensor | None, *asked: tf.Tensor) -> tf.Tensor:
        """Return float32 `[batch, d]`.

        Args:
            users: Result of `users` for the same inputs.
            *asked: Inputs.
        """


class KnownUsers(tf.Module):
    """Users by id, with the queries that a query tower of ours has for them.

    Attributes:
        inputs: User ids.
        kept: Events of each user, which can be excluded; None without them.
        reads_requests: Whether histories and features of a request change a query.
    """

    inputs = (tf.TensorSpec([None], tf.string, name=contract.USER_ID),)

    def __init__(self, tower: QueryTower, embed: Embed) -> None:
        """Take a query tower and the embeddings of its candidates."""
        super().__init__()
        self._tower, self._embed = tower, embed
        self.kept: PairTable | None = tower.kept
        self.reads_requests = tower.reads_requests
        users = tf.TensorSpec([None], tf.int64)
        self._queries = Once(self._by_users, users)
        self._queries_after = Once(self._by_requests, users, *REQUEST)

    def users(self, user_id: tf.Tensor) -> tf.Tensor:
        """Return the position of each user, -1 if training never met it."""
        return tf.ensure_shape(self._tower.positions(user_id), [None])

    def queries(self, users: tf.Tensor, user_id: tf.Tensor | None = None) -> tf.Tensor:
        """Return the queries of users at positions."""
        return self._queries(users)

    def queries_after(self, users: tf.Tensor, request: Request) -> tf.Tensor:
        """Return the queries of users with the histories and features of a request."""
        return self._queries_after(users, *request)

    def structure(self) -> dict[str, Any]:
        """Return what the query tower's variables do not tell; see `QueryTower.structure`."""
        return self._tower.structure()

    def known_features(self, features: tf.Tensor) -> tf.Tensor:
        """Return how many features of each user the tower knows."""
        return self._tower.known_features(features)

    def _by_users(self, users: tf.Tensor) -> tf.Tensor:
        queries = self._tower(self._embed, users)
        return tf.ensure_shape(queries, [None, self._tower.dimension])

    def _by_requests(self, users: tf.Tensor, *request: tf.Tensor) -> tf.Tensor:
        queries = self._tower(self._embed, users, Request(*request))
        return tf.ensure_shape(queries, [None, self._tower.dimension])
