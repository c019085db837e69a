"""Ends a training after a while and says how fast it was."""

import time

from shortlist.export.progress import Progress, TrainingState

__all__ = ["Enough", "Stopwatch"]


class Enough(Exception):  # noqa: N818 - not an error: the measurement is done
    """The training has been measured for long enough."""


class Stopwatch(Progress):
    """Counts interactions and seconds after a warm-up.

    Attributes:
        batches: Done in all.
        first_seconds: The warm-up took.
        interactions: After the warm-up.
        seconds: After the warm-up.
    """

    def __init__(self, seconds: float, *, warm_up: int | None) -> None:
        """Waits for `start`.

        Args:
            seconds: When to raise `Enough`.
            warm_up: Batches that do not count; None for the first epoch.
        """
        self._limit = seconds
        self._warm_up = warm_up
        self._before: tuple[float, int] | None = None
        self.batches = self.interactions = 0
        self.seconds = self.first_seconds = 0.0

    def start(self, batches_per_epoch: int) -> None:
        """Begins to count."""
        if self._warm_up is None:
            self._warm_up = batches_per_epoch
        self._began = time.monotonic()

    def batches_done(self, state: TrainingState) -> None:
        """Takes the time.

        Raises:
            Enough: It has been long enough.
        """
        now = time.monotonic()
        self.batches = state.done
        if self._before is None:
            assert self._warm_up is not None
            if state.done >= self._warm_up:
                self._before = now, state.interactions
                self.first_seconds = now - self._began
            return
        self.seconds = now - self._before[0]
        self.interactions = state.interactions - self._before[1]
        if self.seconds >= self._limit:
            raise Enough
