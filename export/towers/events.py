"""Events of users inside a servable: those it keeps, and those of a request."""

from typing import NamedTuple

from shortlist.export._tf import tf
from shortlist.export.data.histories import LONGEST_GAP, Histories, KeptEvents
from shortlist.export.data.pairs import Pairs
from shortlist.export.towers.pair_table import PairTable
from shortlist.export.towers.stored.module import StoredModule

__all__ = ["EventTable", "Events", "Request", "joined", "request_events"]


class Events(NamedTuple):
    """Events of a batch of users, oldest first, row after row.

    Attributes:
        splits: int64 `[batch + 1]`; the events of row i are those from `splits[i]` up to but
            excluding `splits[i + 1]`.
        positions: int32 `[m]`, candidates.
        gaps: int32 `[m]`, buckets of the time since the previous event, see `Histories.gaps`.
        weights: float32 `[m]`, positive.
    """

    splits: tf.Tensor
    positions: tf.Tensor
    gaps: tf.Tensor
    weights: tf.Tensor

    @property
    def counts(self) -> tf.Tensor:
        """Number of events of each row, int64 `[batch]`."""
        return self.splits[1:] - self.splits[:-1]

    @property
    def rows(self) -> tf.Tensor:
        """Row of each event, int64 `[m]`."""
        return tf.repeat(tf.range(tf.size(self.counts, tf.int64)), self.counts)


class Request(NamedTuple):
    """What a request tells about its users besides their ids, one row per user.

    Attributes:
        positions: int32 `[batch, h]`, candidates of the user's events, oldest first; the number
            of candidates for unknown ones and padding.
        ages: float32 `[batch, h]`, seconds since each event; negative if unknown.
        weights: float32 `[batch, h]`; events whose weight is not positive are left out.
        features: string `[batch, f]` of `name=value`; "" is padding.
    """

    positions: tf.Tensor
    ages: tf.Tensor
    weights: tf.Tensor
    features: tf.Tensor


class EventTable(PairTable):
    """Events of all users as variables: five bytes per event, nine with weights."""

    def __init__(self, histories: Histories | KeptEvents) -> None:
        """Copy the events of `[num_users]` users."""
        super().__init__(histories.events)
        self._gaps = tf.Variable(histories.gaps, dtype=tf.int8, trainable=False)
        weights = histories.events.weights
        self._weights = None if weights is None else tf.Variable(weights, trainable=False)

    @staticmethod
    def stored(stored: StoredModule) -> KeptEvents:
        """Return the events of a table in a version."""
        return KeptEvents(
            events=Pairs(
                starts=stored.value("_starts")[:-1],
                columns=stored.value("_columns"),
                weights=stored.value("_weights") if "_weights" in stored else None,
            ),
            gaps=stored.value("_gaps"),
        )

    def events(self, users: tf.Tensor) -> Events:
        """Events of users int64 `[batch]`; none for negative positions, of unknown users."""
        entries = self.entries(tf.where(users < 0, tf.cast(self.num_rows, tf.int64), users))
        return Events(
            splits=entries.row_splits,
            positions=tf.gather(self._columns, entries.flat_values),
            gaps=tf.cast(tf.gather(self._gaps, entries.flat_values), tf.int32),
            weights=(
                tf.ones_like(entries.flat_values, tf.float32)
                if self._weights is None
                else tf.gather(self._weights, entries.flat_values)
            ),
        )


def request_events(request: Request, num_candidates: int) -> Events:
    """Return the events of a request that count: of known candidates, with a positive weight."""
    counted = (request.positions < num_candidates) & (request.weights > 0)
    places = tf.where(counted)
    rows, ages = places[:, 0], tf.gather_nd(request.ages, places)
    since = ages[:-1] - ages[1:]
    timed = (rows[1:] == rows[:-1]) & (ages[:-1] >= 0) & (ages[1:] >= 0)
    buckets = tf.where(timed, _bucket(tf.maximum(since, 0.0)), 0)
    counts = tf.reduce_sum(tf.cast(counted, tf.int64), axis=1)
    return Events(
        splits=tf.concat([[0], tf.cumsum(counts)], axis=0),
        positions=tf.gather_nd(request.positions, places),
        # The first event has no gap; without any event there is none to drop, either.
        gaps=tf.concat([tf.zeros_like(rows[:1], tf.int32), buckets], axis=0),
        weights=tf.gather_nd(request.weights, places),
    )


def joined(first: Events, second: Events) -> Events:
    """Return, for each row, the events of `first` followed by those of `second`."""
    places = [
        tf.range(first.splits[-1]) + tf.repeat(second.splits[:-1], first.counts),
        tf.range(second.splits[-1]) + tf.repeat(first.splits[1:], second.counts),
    ]
    places = [tf.cast(place, tf.int32) for place in places]
    return Events(
        first.splits + second.splits,
        *(
            tf.dynamic_stitch(places, [before, after])
            for before, after in zip(first[1:], second[1:], strict=True)
        ),
    )


def _bucket(seconds: tf.Tensor) -> tf.Tensor:
    """Gap buckets int32, as `Histories.gaps` computes them: from the exponent of the float."""
    bits = tf.bitcast(1.0 + seconds, tf.int32)
    return tf.minimum(tf.bitwise.right_shift(bits, 23) - 126, LONGEST_GAP)
