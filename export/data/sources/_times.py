"""Reads a column of times in any form in which files hold them."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shortlist.export.data.config import DataError

__all__ = ["TimeColumn"]

log = logging.getLogger(__name__)

Seconds = npt.NDArray[np.int64]

# What whole numbers since 1970 can count, and how many make a second.
_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
# Times of interactions are in here. These ranges do not overlap between units.
_FIRST, _END = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1990, 2100))
_LAST_SECOND = 253_402_300_799  # 9999-12-31
_LARGEST_DOUBLE = float(2**63 - 1024)  # that is an int64
# Numbers that spell a date if all rows do, by their number of digits.
_SPELLED = {8: ("%Y%m%d", "YYYYMMDD"), 14: ("%Y%m%d%H%M%S", "YYYYMMDDhhmmss")}
_NOT_A_TIME = "is neither seconds since 1970 nor like 2024-05-31 18:00:00"
_ZONE = re.compile(r"(Z|[+-]\d\d(:?\d\d)?)$")
# Microseconds reach further back and forward than nanoseconds, which some files write.
_PLAIN = (pa.timestamp("us"), pa.timestamp("ns"))
_ZONED = (pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC"))


@dataclass(frozen=True, kw_only=True)
class TimeColumn:
    """A column of times, with names for messages.

    Attributes:
        values: The times; none is missing.
        name: Name of the column.
        file: Name of the file.
        where: Location of a row (from 0), such as `own.csv, line 3`.
    """

    values: pa.ChunkedArray
    name: str
    file: str
    where: Callable[[int], str]

    def seconds(self) -> Seconds:
        """Return the times as int64 seconds since the epoch.

        Takes dates and times with a time zone, or in UTC; whole numbers that all spell dates,
        such as 20240531; other numbers as seconds, milliseconds, microseconds or nanoseconds since
        1970, whichever gives years from 1990 to 2099.

        Raises:
            DataError: A value is not a time, or the values have several forms.
        """
        column = self.values
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = self._parsed(column)
        if pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(column.type):
            whole = column.cast(pa.timestamp("s", column.type.tz), safe=False)
            return self._checked(np.asarray(whole.cast(pa.int64())), str(column.type))
        numbers = self._whole(column)
        dates = self._spelled_dates(numbers)
        if dates is not None:
            return dates
        unit = self._unit(numbers)
        return self._checked(numbers // _UNITS[unit], f"{unit} since 1970")

    def _whole(self, column: pa.ChunkedArray) -> Seconds:
        """Return numbers without their fractions."""
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise self._odd(0)
        numbers = column.to_numpy()
        floating = numbers.dtype.kind == "f"
        largest = _LARGEST_DOUBLE if floating else 2**63 - 1
        odd = np.flatnonzero(~(np.abs(numbers) <= largest))  # NaN, too
        if odd.size:
            raise self._odd(int(odd[0]))
        return np.asarray(np.floor(numbers) if floating else numbers, np.int64)

    def _checked(self, seconds: Seconds, form: str) -> Seconds:
        """Return the seconds; warn if all of them are in unusual years."""
        log.info("%s, column %r is read as %s", self.file, self.name, form)
        first, last = int(seconds.min()), int(seconds.max())
        if last < _FIRST or first >= _END:
            log.warning(
                "%s, column %r is read as %s, which gives times from %s to %s; "
                "convert the column if that is wrong",
                *(self.file, self.name, form, np.datetime64(first, "s"), np.datetime64(last, "s")),
            )
        return seconds

    def _spelled_dates(self, numbers: Seconds) -> Seconds | None:
        """Return the seconds of numbers that all spell dates from 1900 to 2099, else None."""
        length = len(str(numbers[0]))
        if length not in _SPELLED:
            return None
        form, shown = _SPELLED[length]
        scale = 10 ** (length - 8)
        if numbers.min() < 1900_01_01 * scale or numbers.max() >= 2100_01_01 * scale:
            return None
        distinct, codes = np.unique(numbers, return_inverse=True)
        times = [_date(number, form) for number in distinct.tolist()]
        if 2 * times.count(None) > len(times):
            return None  # counters, say
        if None in times:
            row = int(
                np.isin(codes, [at for at, time in enumerate(times) if time is None]).argmax()
            )
            raise self._odd(row, f"is not a date {shown}")
        log.warning(
            "%s, column %r is read as dates %s: %d is %s",
            *(self.file, self.name, shown, numbers[0], str(times[int(codes[0])])[:-6]),
        )
        return np.asarray([int(time.timestamp()) for time in times if time is not None])[codes]

    def _unit(self, numbers: Seconds) -> str:
        """Return the unit that gives usual years, or else the smallest one for their size."""
        rows = {}
        for unit, factor in _UNITS.items():
            usual = (numbers >= _FIRST * factor) & (numbers < _END * factor)
            if usual.any():
                rows[unit] = int(usual.argmax())
        if len(rows) > 1:
            raise self._mixed({f"{unit} since 1970": row for unit, row in rows.items()})
        if rows:
            return next(iter(rows))
        largest = max(int(numbers.max()), -int(numbers.min()))
        return next(unit for unit, factor in _UNITS.items() if largest <= _LAST_SECOND * factor)

    def _parsed(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the numbers or times that a column of text holds."""
        for kind in (pa.int64(), pa.float64(), *_PLAIN, *_ZONED):
            try:
                return column.cast(kind)
            except pa.ArrowInvalid:
                continue
        rows: dict[str, int] = {}
        for row, text in enumerate(column.to_pylist()):
            form = _form(text)
            if form is None:
                raise self._odd(row)
            rows.setdefault(form, row)
        raise self._mixed(rows)

    def _odd(self, row: int, what: str = _NOT_A_TIME) -> DataError:
        return DataError(
            f"{self.where(row)}, column {self.name!r} holds {self._value(row)}, which {what}; "
            "correct or remove the row"
        )

    def _mixed(self, rows: Mapping[str, int]) -> DataError:
        """Return the error for several forms, given the first row of each."""
        (form, row), (other_form, other_row) = sorted(rows.items(), key=lambda item: item[1])[:2]
        other_place = self.where(other_row).rpartition(", ")[2]
        return DataError(
            f"{self.where(row)}, column {self.name!r} holds {self._value(row)} ({form}), but "
            f"{other_place} holds {self._value(other_row)} ({other_form}); "
            "write all times in the same form"
        )

    def _value(self, row: int) -> str:
        return repr(str(self.values[row].as_py()))


def _date(number: int, form: str) -> datetime | None:
    try:
        return datetime.strptime(str(number), form).replace(tzinfo=UTC)
    except ValueError:
        return None


def _form(text: str) -> str | None:
    """Return the form of a value in words, or None if it is not a time."""
    # Most are digits, and a scalar of Arrow takes 30 microseconds.
    if (text.isascii() and text.isdigit()) or _is(text, pa.float64()):
        return "a number"
    if _is(text, *_PLAIN):
        return "a time without a time zone"
    return "a time with a time zone" if _ZONE.search(text) and _is(text, *_ZONED) else None


def _is(text: str, *kinds: pa.DataType) -> bool:
    for kind in kinds:
        try:
            pa.scalar(text).cast(kind)
        except pa.ArrowInvalid:
            continue
        return True
    return False
