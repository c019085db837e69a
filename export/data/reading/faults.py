"""Faulty rows of a source, collected over all of it and told at once."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.config import DataError

__all__ = ["SHOWN", "Fault", "Faults", "FaultyRowsError"]

log = logging.getLogger(__name__)

SHOWN = 3  # places of each fault


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Rows of a source with the same fault.

    Attributes:
        what: What is wrong, to follow the place: `, column 'age' is empty`.
        remedy: Instruction for the user.
        count: Number of rows.
        places: Places of the first ones, such as `line 3`.
    """

    what: str
    remedy: str
    count: int
    places: Sequence[str]

    @property
    def name(self) -> str:
        """What is wrong, alone."""
        return self.what.lstrip(",: ")

    @property
    def where(self) -> str:
        """The places in words: `line 3`, `lines 3, 5 and 9`, `lines 3, 5, 9 and more`."""
        places = list(self.places)
        kind = places[0].rpartition(" ")[0]
        if len(places) > 1 and all(place.rpartition(" ")[0] == kind for place in places):
            head, _, word = kind.rpartition(", ")
            places = [place.rpartition(" ")[2] for place in places]
            places[0] = f"{head + ', ' if head else ''}{word}s {places[0]}"
        if self.count > len(places):
            places.append("more")
        return places[0] if len(places) == 1 else f"{', '.join(places[:-1])} and {places[-1]}"


class FaultyRowsError(DataError):
    """More faulty rows than may be left out.

    Attributes:
        faults: Faults, in the order in which they were found.
        total: Number of all rows.
    """

    def __init__(self, message: str, faults: Sequence[Fault], total: int) -> None:
        super().__init__(message)
        self.faults = tuple(faults)
        self.total = total


class Faults:
    """Faults of a source by kind; a row has one fault at most, the first that was found."""

    def __init__(self, name: str, num_rows: int, where: Callable[[Sequence[int]], list[str]]):
        """Begin without faults.

        Args:
            name: Name of the source in messages.
            num_rows: Number of rows.
            where: Function that returns the places of rows (from 0, ascending), such as `line 3`.
        """
        self.name = name
        self._faulty = np.zeros(num_rows, np.bool_)
        self._lost = 0
        self._where = where
        self._faults: dict[str, Fault] = {}  # by what is wrong

    def add(self, what: str, rows: npt.NDArray[np.integer], remedy: str) -> None:
        """Add a fault of rows.

        Args:
            what: What is wrong, to follow the place: `, column 'age' is empty`.
            rows: Positions of the rows, ascending.
            remedy: Instruction for the user.
        """
        rows = rows[~self._faulty[rows]]
        if len(rows):
            self._faulty[rows] = True
            self._record(what, self._where(rows[:SHOWN].tolist()), len(rows), remedy)

    def add_unread(self, what: str, places: Sequence[str], count: int, remedy: str) -> None:
        """Add a fault of rows that are not among the rows, because they cannot be parsed."""
        self._lost += count
        self._record(what, places, count, remedy)

    def _record(self, what: str, places: Sequence[str], count: int, remedy: str) -> None:
        """Add rows to a fault: several files may have the same one."""
        old = self._faults.get(what)
        if old is not None:
            places, count, remedy = [*old.places, *places], old.count + count, old.remedy
        self._faults[what] = Fault(what=what, remedy=remedy, count=count, places=places[:SHOWN])

    def place(self, row: int) -> str:
        """Return the place of a row, such as `line 3`."""
        return self._where([row])[0]

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """Bool `[num_rows]`, rows without a fault so far."""
        return ~self._faulty

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of rows by fault."""
        return {fault.name: fault.count for fault in self._faults.values()}

    def check(self, skipped_share: float | None = None) -> npt.NDArray[np.bool_]:
        """Return which rows can be used.

        Args:
            skipped_share: Largest share of the rows to go on without; None if none may be left
                out.

        Raises:
            FaultyRowsError: There are faults, and more than this.
        """
        count = sum(fault.count for fault in self._faults.values())
        if not count:
            return self.good
        total = len(self._faulty) + self._lost
        if skipped_share is None or count > skipped_share * total or count == total:
            message = self._message(total, count, skipped_share)
            raise FaultyRowsError(message, [*self._faults.values()], total)
        log.warning(
            "%s: %s of %s rows are left out: %s",
            *(self.name, f"{count:,}", f"{total:,}"),
            "; ".join(f"{number:,} ({what})" for what, number in self.counts.items()),
        )
        return self.good

    def _message(self, total: int, count: int, share: float | None) -> str:
        allowed = "" if share is None else f"--skip-bad-rows allows {share:g} of the rows; "
        # Faults that an option cures are no reason to leave rows out.
        left = sum(fault.count for fault in self._faults.values() if "--" not in fault.remedy)
        skip = ""
        if 0 < left < total and (left > 1 or len(self._faults) > 1 or allowed):
            needed = math.ceil(1000 * left / total) / 1000
            skip = f"{allowed}--skip-bad-rows {needed:g} leaves {left:,} of {total:,} rows out"
        if len(self._faults) == 1:
            (fault,) = self._faults.values()
            more = f" ({count:,} of {total:,} rows)" if count > 1 and not skip else ""
            tail = f"; {skip}" if skip else more
            return f"{self.name}, {fault.where}{fault.what}; {fault.remedy}{tail}"
        width = len(f"{count:,}")
        lines = [f"{self.name}: {count:,} of {total:,} rows cannot be used"]
        for fault in self._faults.values():
            what = f"{fault.name} ({fault.where})"
            lines += [f"  {fault.count:>{width},} rows: {what}", f"  {'':{width}}  {fault.remedy}"]
        return "\n".join([*lines, *([f"  {skip}"] if skip else [])])
