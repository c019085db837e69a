"""Saves the state of a training, so that it can be resumed after a crash.

A checkpoint is one file, replaced by rename: an archive of NumPy arrays and a JSON member with
the position of the training, its configuration and its data.
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.training.states.archive import UNREADABLE, Archive, write_archive

__all__ = [
    "STATE_FOLDER",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "Saved",
    "data_fingerprint",
    "read_arrays",
    "remove_checkpoint",
    "write_arrays",
]

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "training.checkpoint"
STATE_FOLDER = "state"  # for a later training, in the folder of the checkpoint
_FORMAT = 1
_LARGEST_SHARE = 0.05  # of the training time, for writing checkpoints


class CheckpointError(ValueError):
    """A checkpoint cannot be read or written, or belongs to another training."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """State of a training.

    Attributes:
        phase: Name of the phase, such as `search`.
        carried: Values that the recipe needs to resume, as JSON types.
        loop: Position within the phase, as JSON types.
        arrays: Values of the variables, in the order of the recipe.
    """

    phase: str
    carried: Mapping[str, Any]
    loop: Mapping[str, Any]
    arrays: list[npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Place and frequency of checkpoints.

    Attributes:
        folder: Folder of the checkpoint, created if missing.
        resume: Resume from the checkpoint.
        interval: Minimum number of seconds between two checkpoints; 0 for one per step.
    """

    folder: Path
    resume: bool = False
    interval: float = 30.0

    def __post_init__(self) -> None:
        if self.interval < 0:
            raise ValueError(f"interval must not be negative, got {self.interval}")


class Checkpoint:
    """The checkpoint of a training."""

    def __init__(self, config: CheckpointConfig, identity: Mapping[str, Any]) -> None:
        """Prepare a checkpoint, without reading or writing.

        Args:
            config: Folder and interval.
            identity: Values that must be equal to resume, as JSON types.
        """
        self._file = config.folder / CHECKPOINT_FILE
        self._identity = json.loads(json.dumps(identity))
        self._resume = config.resume
        self._interval = config.interval
        self._next = time.monotonic() + config.interval

    def restored(self) -> Saved | None:
        """Return the state to resume from; None to start from the beginning.

        Raises:
            CheckpointError: The checkpoint cannot be read, or belongs to another training.
        """
        if not self._resume:
            return None
        if not self._file.exists():
            log.warning("no checkpoint in %s; training starts from scratch", self._file.parent)
            return None
        try:
            with Archive(self._file) as archive:
                meta = archive.meta
                self._check(meta["format"], meta["identity"])
                arrays = [archive.array(str(number)) for number in range(meta["arrays"])]
            return Saved(
                phase=meta["phase"], carried=meta["carried"], loop=meta["loop"], arrays=arrays
            )
        except UNREADABLE as exc:
            raise CheckpointError(
                f"{self._file} cannot be read ({exc}); delete it, or start again without --resume"
            ) from exc

    def due(self) -> bool:
        """Return whether it is time for the next checkpoint."""
        return time.monotonic() >= self._next

    def save(
        self,
        *,
        phase: str,
        carried: Mapping[str, Any],
        loop: Mapping[str, Any],
        arrays: Iterable[npt.NDArray[Any]],
    ) -> None:
        """Replace the checkpoint; see `Saved`. Arrays are consumed one by one.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        start = time.monotonic()
        meta = {
            "format": _FORMAT,
            "identity": self._identity,
            "phase": phase,
            "carried": carried,
            "loop": loop,
        }
        numbers = map(str, itertools.count())
        try:
            write_archive(self._file, meta, zip(numbers, arrays, strict=False))
        except OSError as exc:
            raise CheckpointError(
                f"cannot write a checkpoint to {self._file.parent}: {exc.strerror}; "
                "choose another folder with --checkpoints"
            ) from exc
        now = time.monotonic()
        pause = max(self._interval, (now - start) / _LARGEST_SHARE) if self._interval else 0.0
        self._next = now + pause

    def _check(self, written_format: int, identity: Mapping[str, Any]) -> None:
        remedy = "use its original options and data, or start again without --resume"
        if written_format != _FORMAT:
            raise CheckpointError(f"{self._file} was written by another release; {remedy}")
        ours, theirs = _flat(self._identity), _flat(identity)
        for key in ours | theirs:
            if ours.get(key) != theirs.get(key):
                raise CheckpointError(
                    f"{self._file} belongs to another training: {key} was {theirs.get(key)!r} and "
                    f"is now {ours.get(key)!r}; {remedy}"
                )


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint and the state next to it, and its folder if that is then empty."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    for leftover in folder.glob(f".{CHECKPOINT_FILE}.*"):
        leftover.unlink(missing_ok=True)  # of a process that was killed while writing
    shutil.rmtree(folder / STATE_FOLDER, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def data_fingerprint(dataset: Dataset, split: Split) -> str:
    """Digest of everything that training uses of the data and their split."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (
        dataset.user_positions,
        dataset.candidate_positions,
        dataset.ratings,
        *(() if dataset.weights is None else (dataset.weights,)),
        split.training,
        split.validation,
        split.validation_given,
    ):
        # A missing array changes the digest, too.
        digest.update(b"-" if array is None else _bytes(array))
    for ids in (dataset.user_ids, dataset.candidate_ids):
        digest.update("\0".join(ids).encode("utf-8", "surrogatepass"))
    for attributes in (dataset.attributes, dataset.user_attributes, dataset.words):
        for name, attribute in sorted(attributes.items()):
            digest.update(f"\1{name}".encode("utf-8", "surrogatepass"))
            if attribute.numbers is not None:
                digest.update(_bytes(attribute.numbers))
            for values in attribute.values or ():
                digest.update("\0".join(values).encode("utf-8", "surrogatepass") + b"\1")
    for name, context in sorted(dataset.context.items()):
        digest.update("\0".join([name, *context.values]).encode("utf-8", "surrogatepass"))
        digest.update(_bytes(context.codes))
    return digest.hexdigest()


def write_arrays(file: IO[bytes], arrays: Iterable[npt.NDArray[Any]]) -> None:
    """Replace the contents of a file, such as a temporary one, by some arrays."""
    file.seek(0)
    file.truncate()
    for array in arrays:
        np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    file.flush()


def read_arrays(file: IO[bytes]) -> Iterator[npt.NDArray[Any]]:
    """Yield the arrays that `write_arrays` wrote, one by one."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    while file.tell() < end:
        yield np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).data


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
