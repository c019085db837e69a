"""Rating heads: predict the rating that a user would give a candidate."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.change import CorpusChange
from shortlist.export.towers.rating_means import RatingMeans
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["LinearRatingHead", "NetworkRatingHead", "RatingHead"]

Matrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int32]

_BATCH = 65_536


class RatingHead(tf.Module, ABC):
    """Predicts ratings; unknown users and candidates get the means.

    Attributes:
        means: Mean rating, and the bias of each user and candidate.
        kind: Kind of head.
    """

    kind: ClassVar[str]

    def __init__(self, means: RatingMeans) -> None:
        super().__init__()
        self.means = means
        # The last entry, 0, is the bias of unknown users and candidates.
        self._user_bias = _table(means.user_bias)
        self._candidate_bias = _table(means.candidate_bias)
        self._num_users = len(means.user_bias)

    def __call__(
        self,
        users: tf.Tensor,
        query_embeddings: tf.Tensor,
        candidates: tf.Tensor,
        candidate_embeddings: tf.Tensor,
    ) -> tf.Tensor:
        """Ratings of pairs.

        Args:
            users: Int64 `[batch]`, positions; -1 for unknown users.
            query_embeddings: Float32 `[batch, d]`.
            candidates: Int32 `[batch]`, positions; the number of candidates for unknown ones.
            candidate_embeddings: Float32 `[batch, d]`; any values for unknown candidates.

        Returns:
            Float32 `[batch]`, between the lowest and highest rating of the training part.
        """
        users = tf.where(users < 0, tf.cast(self._num_users, tf.int64), users)
        means = (
            tf.constant(self.means.mean, tf.float32)
            + tf.gather(self._user_bias, users)
            + tf.gather(self._candidate_bias, candidates)
        )
        raw = self._rate(means, users, query_embeddings, candidates, candidate_embeddings)
        return tf.clip_by_value(raw, self.means.lowest, self.means.highest)

    def structure(self) -> dict[str, Any]:
        """Return what its variables do not tell, as JSON values."""
        means = self.means
        return {
            "kind": self.kind,
            "mean": float(means.mean),
            "lowest": float(means.lowest),
            "highest": float(means.highest),
            "strengths": list(map(float, means.strengths)),
        }

    @abstractmethod
    def _rate(
        self,
        means: tf.Tensor,
        users: tf.Tensor,
        query_embeddings: tf.Tensor,
        candidates: tf.Tensor,
        candidate_embeddings: tf.Tensor,
    ) -> tf.Tensor:
        """Ratings `[batch]`, given those of the means; unknown positions are the last ones."""

    def predict(
        self, users: Positions, candidates: Positions, queries: Matrix, embeddings: Matrix
    ) -> npt.NDArray[np.float32]:
        """Ratings float32 `[n]` of positions `[n]`, from all embeddings of both towers."""
        parts = [np.empty(0, np.float32)]
        for start in range(0, len(users), _BATCH):
            user = users[start : start + _BATCH]
            candidate = candidates[start : start + _BATCH]
            ratings = self(user.astype(np.int64), queries[user], candidate, embeddings[candidate])
            parts.append(ratings.numpy())
        return np.concatenate(parts)


class LinearRatingHead(RatingHead):
    """The means plus a taste per user: a direction in the space of candidate embeddings."""

    kind = "linear"

    def __init__(self, means: RatingMeans, tastes: npt.NDArray[np.float64]) -> None:
        """Copy the tastes `[num_users, d]`; unknown candidates add nothing to the means."""
        super().__init__(means)
        self._tastes = _table(tastes)
        self._num_candidates = len(means.candidate_bias)

    @classmethod
    def restored(
        cls,
        stored: StoredModule,
        structure: Mapping[str, Any],
        users: npt.NDArray[np.int64],
        change: CorpusChange,
    ) -> Self:
        """Return the head of a version for some of its users and a changed corpus."""
        bias = stored.value("_candidate_bias")[:-1]
        means = RatingMeans(
            mean=structure["mean"],
            user_bias=stored.value("_user_bias")[users],
            candidate_bias=change.rows(bias, np.zeros(change.added, np.float32)).astype(np.float64),
            lowest=structure["lowest"],
            highest=structure["highest"],
            strengths=(structure["strengths"][0], structure["strengths"][1]),
        )
        return cls(means, stored.value("_tastes")[users])

    def _rate(
        self,
        means: tf.Tensor,
        users: tf.Tensor,
        query_embeddings: tf.Tensor,
        candidates: tf.Tensor,
        candidate_embeddings: tf.Tensor,
    ) -> tf.Tensor:
        taste = tf.reduce_sum(tf.gather(self._tastes, users) * candidate_embeddings, axis=1)
        return means + tf.where(candidates < self._num_candidates, taste, 0.0)


class NetworkRatingHead(RatingHead):
    """A network over both embeddings, as in TFRS's multitask tutorial."""

    kind = "network"

    def __init__(
        self,
        means: RatingMeans,
        network: Any,
        *,
        known_users: npt.NDArray[np.bool_],
        known_candidates: npt.NDArray[np.bool_],
    ) -> None:
        """Use a trained network.

        Args:
            means: Fallback for pairs with an unknown user or candidate.
            network: Float32 `[batch, 2 d]` -> `[batch, 1]`.
            known_users: `[num_users]`, True for users that training met.
            known_candidates: `[num_candidates]`, True for candidates that training met.
        """
        super().__init__(means)
        self._network = network
        self._known_users = tf.Variable(np.append(known_users, False), trainable=False)
        self._known_candidates = tf.Variable(np.append(known_candidates, False), trainable=False)

    def _rate(
        self,
        means: tf.Tensor,
        users: tf.Tensor,
        query_embeddings: tf.Tensor,
        candidates: tf.Tensor,
        candidate_embeddings: tf.Tensor,
    ) -> tf.Tensor:
        known = tf.gather(self._known_users, users) & tf.gather(self._known_candidates, candidates)
        both = tf.concat([query_embeddings, candidate_embeddings], axis=1)
        return tf.where(known, self._network(both)[:, 0], means)


def _table(values: npt.NDArray[np.float64]) -> Any:
    """Return a variable with an extra last row of zeros, for unknown positions."""
    rows = np.concatenate([values, np.zeros_like(values[:1])]).astype(np.float32)
    return tf.Variable(rows, trainable=False)
