"""Samples of bounded size from streams of any length."""

import hashlib
import heapq
import random
from typing import Final, Generic, TypeVar

__all__ = ["DistinctSample", "Reservoir"]

T = TypeVar("T")

_SPAN: Final = 2.0**64


class Reservoir(Generic[T]):
    """A uniform sample; the same stream gives the same sample.

    Args:
        size: Items to keep.

    Attributes:
        seen: Items so far.
    """

    def __init__(self, size: int) -> None:
        self.seen = 0
        self._size = size
        self._items: list[tuple[int, T]] = []
        self._chance = random.Random(0)

    def add(self, item: T) -> None:
        """Take an item into account."""
        place = self.seen
        self.seen += 1
        if place < self._size:
            self._items.append((place, item))
        elif (at := self._chance.randrange(self.seen)) < self._size:
            self._items[at] = (place, item)

    def items(self) -> list[T]:
        """Return the sample in the order of the stream."""
        return [item for _, item in sorted(self._items, key=lambda entry: entry[0])]


class DistinctSample(Generic[T]):
    """A sample of the distinct items: the first of each of the lowest hashes.

    Args:
        size: Distinct items to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[int] = []  # negative hashes, so that the highest comes out first
        self._items: dict[int, T] = {}
        self._full = False

    def add(self, identity: bytes, item: T) -> None:
        """Take an item into account.

        Args:
            identity: Equal for equal items.
            item: What to keep of the first of them.
        """
        number = int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "big")
        if number in self._items or (self._full and number > -self._heap[0]):
            return
        if self._full:
            del self._items[-heapq.heapreplace(self._heap, -number)]
        else:
            heapq.heappush(self._heap, -number)
            self._full = len(self._heap) == self._size
        self._items[number] = item

    def items(self) -> list[T]:
        """Return the sample in the order of the hashes."""
        return [self._items[number] for number in sorted(self._items)]

    @property
    def exact(self) -> bool:
        """Whether `count` is exact rather than an estimate."""
        return not self._full

    @property
    def count(self) -> int:
        """Number of distinct items, with a standard error of `1 / sqrt(size - 2)` if estimated."""
        if not self._full:
            return len(self._items)
        return round((self._size - 1) * _SPAN / -self._heap[0])
