"""Shows the course of an export on a terminal."""

import time
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

from export.progress import Progress

__all__ = ["ConsoleProgress"]


class ConsoleProgress(Progress):
    """One line per finished step, and a bar while batches are trained.

    Use it as a context manager, so that an interrupted bar is cleared away.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[Any] | None = None
        self._drawn = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close_bar()

    def step_finished(self, step: str, measure: str, seconds: float) -> None:
        """Writes the step's line."""
        self._close_bar()
        self._stream.write(f"{step:<18} {seconds:6.1f} s  {measure}\n")
        self._stream.flush()

    def batches_done(self, done: int, total: int, loss: float) -> None:
        """Moves the bar."""
        bar = self._bar
        if bar is None:
            bar = tqdm(
                total=total,
                desc="train",
                unit="batch",
                file=self._stream,
                leave=False,
                disable=not self._stream.isatty(),  # a log file wants lines, not a moving bar
            )
            self._bar = bar
        now = time.monotonic()
        if now - self._drawn > 0.2:  # as often as an eye can follow
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            self._drawn = now
        bar.update(done - bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
