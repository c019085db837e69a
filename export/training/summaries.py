"""The course of a training for TensorBoard."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shortlist.export._tf import tf
from shortlist.export.progress import VALIDATION_METRIC
from shortlist.export.towers.trained import EpochRecord

__all__ = ["Summaries"]


class Summaries:
    """Event files in a folder; without a folder, nothing. Use it as a context manager."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is not None:
            self._writer = tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, record: EpochRecord) -> None:
        """Adds one epoch."""
        if self._writer is None:
            return
        with self._writer.as_default(step=record.epoch):
            tf.summary.scalar("loss", record.loss)
            if record.validation is not None:
                tf.summary.scalar(f"validation_{VALIDATION_METRIC}", record.validation)
        self._writer.flush()
