"""Rating heads: from a user and a candidate to the rating that the one would give the other."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.ratings import RatingMeans, fit_means, means_of, ratings_of, rmse
from shortlist.export.data.split import Split

__all__ = ["LinearRatingHead", "NetworkRatingHead", "RatingHead", "fit_linear_head"]

Matrix = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int32]

_BATCH = 65_536
# How much a user's taste is drawn to 0, in ratings of candidates along one direction that
# have the mean length.
_STRENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0)
_STRENGTH = 6.0  # without a validation part
_SWEEPS = 3  # of tastes and means in turn; more changed the fourth digit
_USERS_TO_CHOOSE_BY = 5_000


class RatingHead(tf.Module, ABC):
    """Predicts ratings; a user or candidate that training never met gets the means of the rest.

    Attributes:
        means: What is known of each user and candidate by itself.
    """

    def __init__(self, means: RatingMeans) -> None:
        super().__init__()
        self.means = means
        # The last entry stands for whoever is not known: no bias.
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
            users: Int64 `[batch]`, positions; -1 for a user that is not known.
            query_embeddings: Float32 `[batch, d]`.
            candidates: Int32 `[batch]`, positions; the number of candidates for one that is
                not known.
            candidate_embeddings: Float32 `[batch, d]`; whatever where it is not known.

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

    @abstractmethod
    def _rate(
        self,
        means: tf.Tensor,
        users: tf.Tensor,
        query_embeddings: tf.Tensor,
        candidates: tf.Tensor,
        candidate_embeddings: tf.Tensor,
    ) -> tf.Tensor:
        """Ratings `[batch]` given the means' ones; unknown users and candidates come last."""

    def predict(
        self, users: Positions, candidates: Positions, queries: Matrix, embeddings: Matrix
    ) -> npt.NDArray[np.float32]:
        """Ratings float32 `[n]` of positions `[n]`, given all embeddings of both towers."""
        parts = [np.empty(0, np.float32)]
        for start in range(0, len(users), _BATCH):
            user = users[start : start + _BATCH]
            candidate = candidates[start : start + _BATCH]
            ratings = self(user.astype(np.int64), queries[user], candidate, embeddings[candidate])
            parts.append(ratings.numpy())
        return np.concatenate(parts)


class LinearRatingHead(RatingHead):
    """The means, and a taste per user: a direction in the candidate tower's space."""

    def __init__(self, means: RatingMeans, tastes: npt.NDArray[np.float64]) -> None:
        """Keeps tastes `[num_users, d]`; a candidate that is not known adds nothing."""
        super().__init__(means)
        self._tastes = _table(tastes)
        self._num_candidates = len(means.candidate_bias)

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

    def __init__(
        self,
        means: RatingMeans,
        network: Any,
        *,
        known_users: npt.NDArray[np.bool_],
        known_candidates: npt.NDArray[np.bool_],
    ) -> None:
        """Keeps a trained network.

        Args:
            means: For pairs of which the network never met one.
            network: Float32 `[batch, 2 d]` -> `[batch, 1]`.
            known_users: `[num_users]`, whether training met them.
            known_candidates: `[num_candidates]`, the same.
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


def fit_linear_head(
    dataset: Dataset, split: Split, candidate_embeddings: Matrix
) -> LinearRatingHead:
    """Fits each user's taste by ridge regression on the embeddings of what was rated.

    The towers stay as they are, so retrieval loses nothing. Means and tastes are fitted in
    turn, each to what the other leaves over. The regression's strength is chosen on the
    ratings of the validation part, if there is one.

    Raises:
        ValueError: The data has no ratings.
    """
    means = fit_means(dataset, split)
    embeddings = candidate_embeddings.astype(np.float64)
    length = np.sqrt(np.mean(np.sum(embeddings**2, axis=1)))
    embeddings /= length
    strength = _STRENGTH
    if len(split.validation):
        strength = _choose_strength(dataset, split, means, embeddings)
    part = split.fitted
    users, candidates = dataset.user_positions[part], dataset.candidate_positions[part]
    for _ in range(_SWEEPS):
        left = _left_over(dataset, part, means)
        tastes = _ridge(users, candidates, left, embeddings, strength, len(dataset.user_ids))
        explained = _products(tastes, users, embeddings, candidates)
        means = means_of(dataset, part, means.strengths, explained=explained)
    return LinearRatingHead(means, tastes / length)


def _choose_strength(
    dataset: Dataset, split: Split, means: RatingMeans, embeddings: npt.NDArray[np.float64]
) -> float:
    """The strength that predicts the validation part's ratings best, by some of the users."""
    judged = split.validation
    some = np.unique(dataset.user_positions[judged])
    if len(some) > _USERS_TO_CHOOSE_BY:
        some = np.random.default_rng(0).choice(some, _USERS_TO_CHOOSE_BY, replace=False)
        judged = judged[np.isin(dataset.user_positions[judged], some)]
    means = means_of(dataset, split.training, means.strengths)
    part = split.training[np.isin(dataset.user_positions[split.training], some)]
    left = _left_over(dataset, part, means)
    users, candidates = dataset.user_positions[judged], dataset.candidate_positions[judged]

    def error(strength: float) -> float:
        tastes = _ridge(
            dataset.user_positions[part],
            dataset.candidate_positions[part],
            left,
            embeddings,
            strength,
            len(dataset.user_ids),
        )
        explained = _products(tastes, users, embeddings, candidates)
        return rmse(explained, _left_over(dataset, judged, means))

    return min(_STRENGTHS, key=error)


def _left_over(
    dataset: Dataset, part: npt.NDArray[np.int64], means: RatingMeans
) -> npt.NDArray[np.float64]:
    """What the means leave of the ratings at some positions."""
    users, candidates = dataset.user_positions[part], dataset.candidate_positions[part]
    biases = means.user_bias[users] + means.candidate_bias[candidates]
    return ratings_of(dataset)[part].astype(np.float64) - means.mean - biases


def _ridge(
    users: Positions,
    candidates: Positions,
    targets: npt.NDArray[np.float64],
    embeddings: npt.NDArray[np.float64],
    strength: float,
    num_users: int,
) -> npt.NDArray[np.float64]:
    """Each user's ridge regression `[num_users, d]` of their targets on candidates' embeddings."""
    weights = np.zeros((num_users, embeddings.shape[1]))
    order = np.argsort(users, kind="stable")
    bounds = np.searchsorted(users[order], np.arange(num_users + 1))
    for user in np.flatnonzero(np.diff(bounds)):
        rows = order[bounds[user] : bounds[user + 1]]
        features, wanted = embeddings[candidates[rows]], targets[rows]
        if len(rows) < features.shape[1]:  # as many equations as ratings, by the kernel trick
            kernel = features @ features.T
            kernel.flat[:: len(rows) + 1] += strength
            weights[user] = features.T @ np.linalg.solve(kernel, wanted)
        else:
            moments = features.T @ features
            moments.flat[:: len(moments) + 1] += strength
            weights[user] = np.linalg.solve(moments, features.T @ wanted)
    return weights


def _products(
    tastes: npt.NDArray[np.float64],
    users: Positions,
    embeddings: npt.NDArray[np.float64],
    candidates: Positions,
) -> npt.NDArray[np.float64]:
    """Inner products `[m]` of users' tastes and candidates, in batches."""
    products = np.empty(len(users))
    for start in range(0, len(users), _BATCH):
        own = slice(start, start + _BATCH)
        pairs = tastes[users[own]] * embeddings[candidates[own]]
        products[own] = pairs.sum(axis=1)
    return products


def _table(values: npt.NDArray[np.float64]) -> Any:
    """A variable with one more entry, of zeros, for whoever is not known."""
    rows = np.concatenate([values, np.zeros_like(values[:1])]).astype(np.float32)
    return tf.Variable(rows, trainable=False)
