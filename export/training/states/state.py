"""What a training leaves in a version, for a later one on grown data to start from.

A state holds the taste: variables with the optimizer's slots, by name, and the ids of their rows. A
later training finds rows by id. The order is learned anew each time: carried over from day to day,
it fell behind.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from shortlist.export._tf import tf
from shortlist.export.training.states.archive import UNREADABLE, Archive, write_archive
from shortlist.export.training.states.warm_start import FORMAT, WarmStartError

__all__ = ["Rows", "State", "carry_variables", "matched_columns", "named_arrays"]

log = logging.getLogger(__name__)

_MOMENTUM = "m"  # slot of Adam that a new row starts with 0 in


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Rows of a table that an earlier table has, too.

    Attributes:
        places: int64 `[n]`, in this table.
        earlier: int64 `[n]`, in the earlier one.
    """

    places: npt.NDArray[np.int64]
    earlier: npt.NDArray[np.int64]

    @classmethod
    def matched(cls, earlier: Sequence[str], now: Sequence[str]) -> Self:
        """Match rows by their distinct ids."""
        row_of = {row_id: row for row, row_id in enumerate(earlier)}
        found = np.asarray([row_of.get(row_id, -1) for row_id in now], np.int64)
        places = np.flatnonzero(found >= 0)
        return cls(places=places, earlier=found[places])

    def others(self, num_rows: int) -> npt.NDArray[np.int64]:
        """Return the rows of this table that the earlier one lacks."""
        return np.setdiff1d(np.arange(num_rows), self.places, assume_unique=True)


@dataclass(frozen=True, kw_only=True)
class State:
    """The state that a training starts from, and the one that it leaves.

    Attributes:
        start: File of this part in the state to start from; None to start from random values.
        leave: File to write this part to; None to write none.
    """

    start: Path | None = None
    leave: Path | None = None

    def opened(self) -> Archive:
        """Open the part to start from.

        Raises:
            WarmStartError: It cannot be read.
        """
        assert self.start is not None
        try:
            part = Archive(self.start)
            if part.meta["format"] != FORMAT:
                raise KeyError(f"format {part.meta['format']}")
            return part
        except UNREADABLE as exc:
            raise WarmStartError(
                f"the training state {self.start} cannot be read ({exc}); export without "
                "--warm-start"
            ) from exc

    def save(self, meta: dict[str, Any], arrays: Iterator[tuple[str, npt.NDArray[Any]]]) -> None:
        """Write the part to leave, if any.

        Raises:
            WarmStartError: It cannot be written.
        """
        if self.leave is None:
            return
        try:
            write_archive(self.leave, {**meta, "format": FORMAT}, arrays)
        except OSError as exc:
            raise WarmStartError(
                f"cannot write the training state to {self.leave.parent}: {exc.strerror}; choose "
                "another folder with --checkpoints, or leave it out with --without-training-state"
            ) from exc


def matched_columns(earlier: Sequence[str], now: Sequence[str]) -> Rows:
    """Match features by name, and buckets of numbers, whose borders move, by their place."""
    rows = Rows.matched(earlier, now)
    places, found = [rows.places], [rows.earlier]
    before, after = _buckets(earlier), _buckets(now)
    for name, columns in after.items():
        missing = np.setdiff1d(columns, rows.places)
        if name in before and len(missing):
            order = np.searchsorted(columns, missing)
            theirs = np.asarray(before[name])
            places.append(missing)
            found.append(theirs[order * len(theirs) // len(columns)])
    return Rows(places=np.concatenate(places), earlier=np.concatenate(found))


def _buckets(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns of each numeric feature, in ascending order."""
    buckets: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        kind = name.partition("=")[0]
        if "<" in kind or (kind.endswith(">") and kind[:-1] in buckets):
            buckets.setdefault(kind.partition("<")[0].removesuffix(">"), []).append(column)
    return buckets


def named_arrays(
    variables: Sequence[tf.Variable], optimizer: Any
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the values of variables and of their slots, and the number of steps."""
    yield "iterations", optimizer.iterations.numpy()
    for variable in variables:
        yield _name(variable), variable.numpy()
        for slot in optimizer.get_slot_names():
            yield f"{_name(variable)}.{slot}", optimizer.get_slot(variable, slot).numpy()


def carry_variables(
    part: Archive, variables: Sequence[tf.Variable], optimizer: Any, rows: dict[str, Rows]
) -> None:
    """Assign the values that `named_arrays` gave, with those of the optimizer.

    New rows of a table keep their values. Their slots become the mean of the carried ones, so
    that their first steps are not larger than those of others; the momentum starts with 0.

    Args:
        part: Values.
        variables: Variables to change.
        optimizer: Their optimizer.
        rows: Carried rows by the end of a table's name, such as `candidates`; other variables are
            carried whole.
    """
    for variable in variables:
        name = _name(variable)
        own = rows.get(name.rpartition("_")[2])
        for slot in (None, *optimizer.get_slot_names()):
            stored = part.array(name if slot is None else f"{name}.{slot}")
            target = variable if slot is None else optimizer.get_slot(variable, slot)
            if own is not None:
                values = target.numpy()
                carried = stored[own.earlier]
                if slot not in (None, _MOMENTUM) and len(carried):
                    values[:] = carried.mean(axis=0)
                values[own.places] = carried
                stored = values
            target.assign(stored)
    optimizer.iterations.assign(part.array("iterations"))


def _name(variable: tf.Variable) -> str:
    return str(variable.name).removesuffix(":0")
