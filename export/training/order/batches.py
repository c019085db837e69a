"""Batches of the users' events in time order, cut differently in each epoch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.histories import Histories

__all__ = ["OrderBatch", "OrderBatches"]

# Shares of the rows of a batch without times, and without times from a random event on, so that
# requests without them, or behind kept events with them, are no surprise.
_WITHOUT_GAPS = 0.1
_GAPS_UP_TO = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class OrderBatch:
    """Events of some users, a row each, padded on the right.

    Attributes:
        candidates: int32 `[rows, width]`, positions; 0 if padded.
        gaps: int32 `[rows, width]`, buckets of the times between events; 0 if unknown.
        weights: float32 `[rows, width]`, what each event counts as a target, 1 on average; 0 if
            padded.
    """

    candidates: npt.NDArray[np.int32]
    gaps: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of events of each row, at least 2, `[rows]`."""
        return np.count_nonzero(self.weights, axis=1)


class OrderBatches:
    """Batches of pieces of histories, of similar length within a batch.

    A piece is at most `length + 1` consecutive events: up to `length` inputs, each with the next
    event as its target. The places of the cuts in longer histories change with each epoch, the
    number of batches does not.

    Attributes:
        count: Batches per epoch.
    """

    def __init__(self, histories: Histories, *, length: int, tokens: int, seed: int) -> None:
        """Count the batches.

        Args:
            histories: Events of the users.
            length: Largest number of inputs of a piece.
            tokens: Inputs per batch, about; at least `length`.
            seed: Random seed of the cuts and of the lost times.

        Raises:
            ValueError: No history has two events.
        """
        self._histories = histories
        self._gaps = histories.gaps
        self._weights = histories.relative_weights
        self._length = length
        self._seed = seed
        self._rows = np.flatnonzero(histories.events.counts >= 2)
        if not len(self._rows):
            raise ValueError("no user has two events, so there is no order to learn from")
        self._epoch = -1
        self.count = 0  # before the first cut
        starts, stops = self._cut(0)
        self.count = max(1, int(np.sum(stops - starts - 1)) // tokens)

    def batch(self, number: int, *, epoch: int) -> OrderBatch:
        """Return a batch, the same for the same number and epoch."""
        if epoch != self._epoch:
            self._starts, self._stops = self._cut(epoch)
            ends = np.cumsum(self._stops - self._starts - 1)
            shares = np.arange(self.count + 1) * (ends[-1] / self.count)
            self._bounds = np.searchsorted(ends, shares[:-1], side="right")
            self._bounds = np.append(self._bounds, len(ends))
            self._epoch = epoch
        part = slice(self._bounds[number], self._bounds[number + 1])
        random = np.random.default_rng([self._seed, epoch, number])
        return self._pack(self._starts[part], self._stops[part], random)

    def size(self, number: int) -> int:
        """Return the number of inputs of a batch, in the epoch of the latest one."""
        part = slice(self._bounds[number], self._bounds[number + 1])
        return int(np.sum(self._stops[part] - self._starts[part] - 1))

    def _cut(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First event of each piece and the one after its last, shortest pieces first.

        The first piece of a long history gets a random size, the others the full one; the last
        one overlaps the one before.
        """
        random = np.random.default_rng([self._seed, epoch])
        size = self._length + 1
        counts = self._histories.events.counts[self._rows]
        first = np.where(counts > size, random.integers(2, size + 1, len(counts)), counts)
        pieces = 1 + -(-(counts - first) // self._length)
        row = np.repeat(np.arange(len(counts)), pieces)
        within = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        stops = np.minimum(first[row] + within * self._length, counts[row])
        sizes = np.minimum(stops, size)
        order = np.lexsort((random.random(len(row)), sizes))
        stops = (stops + self._histories.events.starts[self._rows][row])[order]
        return stops - sizes[order], stops

    def _pack(
        self,
        starts: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
        random: np.random.Generator,
    ) -> OrderBatch:
        counts = stops - starts
        width = int(counts.max())
        place = np.arange(width)
        inside = place < counts[:, None]
        events = np.where(inside, starts[:, None] + place, starts[:, None])
        fate = random.random(len(starts))
        timed = np.where(
            fate < _WITHOUT_GAPS + _GAPS_UP_TO, random.integers(0, width, len(starts)), width
        )
        timed[fate < _WITHOUT_GAPS] = 0
        candidates = np.where(inside, self._histories.events.columns[events], 0)
        gaps = np.where(inside & (place < timed[:, None]), self._gaps[events], 0)
        return OrderBatch(
            candidates=candidates.astype(np.int32),
            gaps=gaps.astype(np.int32),
            weights=np.where(inside, self._weights[events], np.float32(0)),
        )
