"""The result of training, the same for all recipes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.data.histories import Histories, KeptEvents
from shortlist.export.towers.events import Events
from shortlist.export.towers.query_tower import Embed, QueryPart, QueryTower
from shortlist.export.towers.rating_head import RatingHead

__all__ = ["EpochRecord", "TrainedModel", "embed_after", "embed_kept", "embed_part"]

Vectors = npt.NDArray[np.float32]

_EVENTS_PER_BATCH = 50_000
_USERS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: Number of the epoch, from 1.
        loss: Mean over its batches.
        validation: NDCG@100 on the validation part, seen candidates excluded; None if not
            measured after this epoch.
    """

    epoch: int
    loss: float
    validation: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """Two towers, ready to be indexed and served.

    Attributes:
        query_tower: Query tower, which keeps the fitted events of all users.
        candidate_embeddings: Float32 `[num_candidates, d]`, in the order of the data set.
        epochs: Number of epochs that the final model was trained for.
        records: Epochs of the training that chose this number.
        taste_dimension: Number of dimensions, the first ones, in which near candidates are
            similar and from which ratings are predicted.
        settings: Settings of the query tower that the validation part chose, by name.
        rating_head: Predicts ratings; None without ratings.
        similar_queries: Float32 `[num_candidates, taste_dimension]`, query of `similar` for each
            candidate; None for its own taste embedding.
    """

    query_tower: QueryTower
    candidate_embeddings: Vectors
    epochs: int
    records: Sequence[EpochRecord]
    taste_dimension: int
    settings: Mapping[str, float] = field(default_factory=dict)
    rating_head: RatingHead | None = None
    similar_queries: Vectors | None = None

    @property
    def taste_embeddings(self) -> Vectors:
        """First `taste_dimension` values of each candidate embedding."""
        return self.candidate_embeddings[:, : self.taste_dimension]

    @property
    def features(self) -> Mapping[str, Sequence[str]]:
        """Values of the features that the query tower takes, by name."""
        features = self.query_tower.features
        return {} if features is None else features.columns.described()

    def embed(self, users: npt.NDArray[np.integer], histories: Histories) -> Vectors:
        """Return the queries of some users with everything that they did; see `embed_after`."""
        return embed_after(self.query_tower, self.candidate_embeddings, users, histories)

    def embed_users(self, positions: npt.NDArray[np.integer]) -> Vectors:
        """Return the queries float32 `[n, d]` of users by their kept events alone."""
        return embed_kept(self.query_tower, self.candidate_embeddings, positions)


def embed_after(
    tower: QueryTower,
    candidates: Vectors,
    users: npt.NDArray[np.integer],
    histories: Histories | KeptEvents,
) -> Vectors:
    """Return the queries of some users with everything that they did, float32 `[n, d]`.

    Args:
        tower: Query tower.
        candidates: `[num_candidates, d]`.
        users: `[n]`, positions of users; -1 for unknown ones.
        histories: `[n]`, their kept events and those after.
    """
    embed = _embed(candidates)
    queries = np.empty((len(users), tower.dimension), np.float32)
    for rows, events in _batches(histories):
        own = tf.constant(users[rows], tf.int64)
        queries[rows] = tower.embed_events(embed, own, events)
    return queries


def embed_kept(
    tower: QueryTower, candidates: Vectors, positions: npt.NDArray[np.integer]
) -> Vectors:
    """Return the queries float32 `[n, d]` of users by their kept events alone."""
    embed = _embed(candidates)
    parts = [np.empty((0, tower.dimension), np.float32)]
    for start in range(0, len(positions), _USERS_PER_BATCH):
        users = tf.constant(positions[start : start + _USERS_PER_BATCH], tf.int64)
        parts.append(tower(embed, users).numpy())
    return np.concatenate(parts)


def embed_part(part: QueryPart, candidates: Vectors, histories: Histories) -> Vectors:
    """Return what one part of a query tower computes, float32 `[len(histories), dimension]`.

    Args:
        part: Part of a query tower.
        candidates: `[num_candidates, d]`, with all dimensions that the part reads.
        histories: Events of each user.
    """
    embed = _embed(candidates)
    queries = np.empty((len(histories), part.dimension), np.float32)
    for rows, events in _batches(histories):
        positions = tf.concat([events.positions, [0]], axis=0)
        queries[rows] = part(embed(positions), events)
    return queries


def _embed(candidates: Vectors) -> Embed:
    """Look embeddings up in an array; TensorFlow would copy a whole corpus to gather from it."""
    return lambda positions: tf.constant(candidates[positions.numpy()])


def _batches(histories: Histories | KeptEvents) -> Iterator[tuple[slice, Events]]:
    """Yield rows with their events, about `_EVENTS_PER_BATCH` at a time."""
    starts = histories.events.starts
    gaps, columns, weights = histories.gaps, histories.events.columns, histories.events.weights
    row = 0
    while row < len(histories):
        stop = int(np.searchsorted(starts, starts[row] + _EVENTS_PER_BATCH, side="right")) - 1
        stop = min(max(stop, row + 1), row + _EVENTS_PER_BATCH, len(histories))
        own = slice(starts[row], starts[stop])
        yield (
            slice(row, stop),
            Events(
                splits=tf.constant(starts[row : stop + 1] - starts[row]),
                positions=tf.constant(columns[own]),
                gaps=tf.constant(gaps[own], tf.int32),
                weights=(
                    tf.ones([own.stop - own.start])
                    if weights is None
                    else tf.constant(weights[own])
                ),
            ),
        )
        row = stop
