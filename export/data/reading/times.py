"""Reads a column of times in any form in which files hold them."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.export.data.config import DataError
from shortlist.export.data.reading.rows import Rows
from shortlist.export.data.reading.values import codes_of, plain_text

__all__ = ["times_of_column"]

log = logging.getLogger(__name__)

Seconds = npt.NDArray[np.int64]
Positions = npt.NDArray[np.int64]

# What whole numbers since 1970 can count, and how many make a second.
_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
# Times of interactions are in here. These ranges do not overlap between units.
_FIRST, _END = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1990, 2100))
_LAST_SECOND = 253_402_300_799  # 9999-12-31
_LARGEST_DOUBLE = float(2**63 - 1024)  # that is an int64
# Numbers that spell a date if all rows do, by their number of digits.
_SPELLED = {8: ("%Y%m%d", "YYYYMMDD"), 14: ("%Y%m%d%H%M%S", "YYYYMMDDhhmmss")}
_NOT_A_TIME = "is neither seconds since 1970 nor like 2024-05-31 18:00:00"
# Spellings that Arrow reads, by form; a date must exist, too.
_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_PLAIN = rf"^{_DATE}(?:[ T](?:[01]\d|2[0-3])(?::[0-5]\d(?::[0-5]\d(?:\.\d{{1,9}})?)?)?)?"
_FORMS = {
    "a number": r"^[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?$",
    "a time without a time zone": _PLAIN + "$",
    "a time with a time zone": _PLAIN + r"(?:Z|[+-]\d\d(?::?\d\d)?)$",
}
# Other usual spellings of the same: a zone in words, slashes, `t` and `z`, a decimal comma.
_RESPELLED = (
    (r"\s*(?:UTC|GMT|Z|z)$", "Z"),
    (r"^(\d{4})[/.](\d\d)[/.](\d\d)", r"\1-\2-\3"),
    (r"^(\d{4}-\d\d-\d\d)t", r"\1T"),
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d):?(\d\d):?(\d\d)", r"\1-\2-\3T\4:\5:\6"),
    (r"^(.*\d\d:\d\d:\d\d),(\d)", r"\1.\2"),
    (r"(:\d\d(?:\.\d+)?) ([+-]\d\d:?\d\d)$", r"\1\2"),
)
# Spellings that a message proposes: month or day first cannot be told from one value.
_PROPOSED = tuple(
    f"{day}{time}"
    for day in (
        *("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d"),
        *("%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y"),
        "%Y-%m-%d",
    )
    for time in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)
_TRIED = 1000  # values


def times_of_column(rows: Rows, name: str, form: str | None = None) -> Seconds:
    """Return a column of times as int64 seconds since the epoch; add others to the faults.

    Takes dates and times with a time zone, or in UTC; whole numbers that all spell dates, such as
    20240531; other numbers as seconds, milliseconds, microseconds or nanoseconds since 1970,
    whichever gives years from 1990 to 2099. If the values have several forms, the rarer ones are
    faults.

    Args:
        rows: Rows with the column.
        name: Name of the column.
        form: Form of the texts as for `datetime.strptime`; None for the usual ones.
    """
    column = rows.columns.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    reading = _Times(rows=rows, name=name, values=column)
    known = reading.known()
    seconds = np.zeros(len(column), np.int64)
    if len(known):
        at, own, shown = reading.seconds(column, known, form)
        seconds[at] = own
        reading.check(own, shown)
    return seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class _Times:
    """Reading of one column; each step returns the positions that it could read."""

    rows: Rows
    name: str
    values: pa.ChunkedArray

    def known(self) -> Positions:
        """Positions of the values that are not missing."""
        column = self.values
        empty = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
        if plain_text(column.type):
            empty = pc.or_kleene(empty, pc.equal(pc.utf8_trim_whitespace(column), ""))
        empty = np.asarray(empty.to_numpy(), np.bool_)
        self._fault("is empty", np.flatnonzero(empty), "fill it in or remove the row")
        return np.flatnonzero(~empty & self.rows.faults.good)

    def seconds(
        self, column: pa.ChunkedArray, at: Positions, form: str | None
    ) -> tuple[Positions, Seconds, str]:
        if len(at) < len(column):
            column = column.take(pa.array(at))
        if plain_text(column.type):
            if form is not None:
                return (*self._formatted(column, at, form), form)
            column, at = self._parsed(pc.utf8_trim_whitespace(column), at)
        if not len(at):
            return at, np.empty(0, np.int64), "times"
        if pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(column.type):
            whole = column.cast(pa.timestamp("s", column.type.tz), safe=False)
            return at, np.asarray(whole.cast(pa.int64()).to_numpy()), str(column.type)
        numbers, at = self._whole(column, at)
        if not len(at):
            return at, numbers, "numbers"
        dates = self._spelled_dates(numbers, at)
        if dates is not None:
            return (*dates, "dates")
        unit, own = self._unit(numbers, at)
        return at[own], numbers[own] // _UNITS[unit], f"{unit} since 1970"

    def check(self, seconds: Seconds, form: str) -> None:
        """Log how the times are read; warn if all of them are in unusual years."""
        file = self.rows.short_name
        log.info("%s, column %r is read as %s", file, self.name, form)
        if not len(seconds):
            return
        first, last = int(seconds.min()), int(seconds.max())
        if last < _FIRST or first >= _END:
            log.warning(
                "%s, column %r is read as %s, which gives times from %s to %s; "
                "convert the column if that is wrong",
                *(file, self.name, form, np.datetime64(first, "s"), np.datetime64(last, "s")),
            )

    def _formatted(
        self, column: pa.ChunkedArray, at: Positions, form: str
    ) -> tuple[Positions, Seconds]:
        distinct, codes = codes_of(pc.utf8_trim_whitespace(column))
        times = [_time(text, form) for text in distinct.to_pylist()]
        odd = np.asarray([time is None for time in times])[codes]
        self._fault(
            f"holds {{value}}, which is not like {form!r}",
            at[odd],
            "give the form of most rows with --timestamp-format",
        )
        seconds = np.asarray([0 if time is None else time for time in times], np.int64)
        return at[~odd], seconds[codes][~odd]

    def _parsed(self, column: pa.ChunkedArray, at: Positions) -> tuple[pa.ChunkedArray, Positions]:
        """Return the numbers or times that a column of text holds."""
        for kind in _casts():
            try:
                return column.cast(kind), at
            except pa.ArrowInvalid:
                continue
        for pattern, replacement in _RESPELLED:
            column = pc.replace_substring_regex(column, pattern, replacement)
        days = pc.utf8_slice_codeunits(column, 0, 10)
        exist = _existing_days(days)
        forms = {
            form: np.asarray(pc.match_substring_regex(column, pattern).to_numpy(), np.bool_)
            & (exist if form != "a number" else True)
            for form, pattern in _FORMS.items()
        }
        odd = ~np.logical_or.reduce(list(forms.values()))
        if odd.any():
            remedy = "correct or remove the row"
            if near := self._proposed(column.filter(pa.array(odd))):
                remedy = f"name the form of the times with --timestamp-format {near}"
            self._fault(f"holds {{value}}, which {_NOT_A_TIME}", at[odd], remedy)
        best = max(forms, key=lambda form: int(forms[form].sum()))
        self._mixed(forms, best, at)
        own = forms[best]
        column, at = column.filter(pa.array(own)), at[own]
        for kind in _casts():
            try:
                return column.cast(kind), at
            except pa.ArrowInvalid:
                continue
        raise DataError(
            f"{self.rows.name}, column {self.name!r} holds times out of range, such as "
            f"{column[0].as_py()!r}; correct them"
        )

    def _proposed(self, column: pa.ChunkedArray) -> str:
        """Forms that fit all odd values, for a message."""
        texts = column.take(np.linspace(0, len(column) - 1, _TRIED, dtype=np.int64)).to_pylist()
        fits = [
            form for form in _PROPOSED if all(_time(text, form) is not None for text in set(texts))
        ][:2]
        return " or ".join(f"'{form}'" for form in fits)

    def _whole(self, column: pa.ChunkedArray, at: Positions) -> tuple[Seconds, Positions]:
        """Return numbers without their fractions."""
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
            raise DataError(
                f"{self.rows.name}, column {self.name!r} is of type {column.type}; "
                "write times as dates, texts or numbers"
            )
        numbers = column.to_numpy()
        floating = numbers.dtype.kind == "f"
        largest = _LARGEST_DOUBLE if floating else 2**63 - 1
        fits = np.abs(numbers) <= largest  # not NaN, either
        self._fault(f"holds {{value}}, which {_NOT_A_TIME}", at[~fits], "correct or remove the row")
        numbers = numbers[fits]
        return np.asarray(np.floor(numbers) if floating else numbers, np.int64), at[fits]

    def _spelled_dates(self, numbers: Seconds, at: Positions) -> tuple[Positions, Seconds] | None:
        """Return the seconds of numbers that all spell dates from 1900 to 2099, else None."""
        length = len(str(numbers[0]))
        if length not in _SPELLED:
            return None
        form, shown = _SPELLED[length]
        scale = 10 ** (length - 8)
        if numbers.min() < 1900_01_01 * scale or numbers.max() >= 2100_01_01 * scale:
            return None
        distinct, codes = np.unique(numbers, return_inverse=True)
        times = [_time(str(number), form) for number in distinct.tolist()]
        if 2 * times.count(None) > len(times):
            return None  # counters, say
        odd = np.asarray([time is None for time in times])[codes]
        self._fault(
            f"holds {{value}}, which is not a date {shown}", at[odd], "correct or remove the row"
        )
        seconds = np.asarray([0 if time is None else time for time in times], np.int64)[codes]
        log.warning(
            "%s, column %r is read as dates %s: %d is %s",
            *(self.rows.short_name, self.name, shown, numbers[~odd][0]),
            str(np.datetime64(int(seconds[~odd][0]), "s")).replace("T", " "),
        )
        return at[~odd], seconds[~odd]

    def _unit(self, numbers: Seconds, at: Positions) -> tuple[str, npt.NDArray[np.bool_]]:
        """Return the unit that gives usual years, or else the smallest one for their size."""
        usual = {
            unit: (numbers >= _FIRST * factor) & (numbers < _END * factor)
            for unit, factor in _UNITS.items()
        }
        best = max(usual, key=lambda unit: int(usual[unit].sum()))
        if usual[best].any():
            forms = {f"{unit} since 1970": rows for unit, rows in usual.items()}
            for length, (form, shown) in _SPELLED.items():
                scale = 10 ** (length - 8)
                rows = (numbers >= 1990_01_01 * scale) & (numbers < 2100_01_01 * scale)
                for row in np.flatnonzero(rows).tolist():
                    rows[row] = _time(str(numbers[row]), form) is not None
                forms[f"a date {shown}"] = rows & ~usual[best]
            self._mixed(forms, f"{best} since 1970", at)
            odd = np.logical_or.reduce(list(forms.values())) & ~usual[best]
            return best, ~odd
        largest = max(int(numbers.max()), -int(numbers.min()))
        unit = next(unit for unit, factor in _UNITS.items() if largest <= _LAST_SECOND * factor)
        return unit, np.ones(len(numbers), np.bool_)

    def _mixed(self, forms: dict[str, npt.NDArray[np.bool_]], best: str, at: Positions) -> None:
        """Add the rows of all forms but the most frequent one to the faults."""
        if not forms[best].any():
            return
        example = int(at[int(forms[best].argmax())])
        for form, own in forms.items():
            if form != best and own.any():
                self._fault(
                    f"holds {{value}} ({form}), but {self.rows.faults.place(example)} holds "
                    f"{self._value(example)} ({best})",
                    at[own & ~forms[best]],
                    "write all times in the same form",
                )

    def _fault(self, what: str, rows: Positions, remedy: str) -> None:
        if len(rows):
            if "{value}" in what:
                what = what.replace("{value}", self._value(int(rows[0])))
            self.rows.faults.add(f", column {self.name!r} {what}", rows, remedy)

    def _value(self, row: int) -> str:
        return repr(str(self.values[row].as_py()))


def _casts() -> Iterator[Any]:
    # Microseconds reach further back and forward than nanoseconds, which some files write.
    yield from (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("ns"))
    yield from (pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC"))


def _existing_days(days: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Whether texts that look like dates are days of the calendar; True for other texts."""
    distinct, codes = codes_of(days)
    exist = []
    for text in distinct.to_pylist():
        try:
            exist.append(bool(date.fromisoformat(text)))
        except ValueError:
            exist.append(False)
    return np.asarray(exist)[codes]


def _time(text: str, form: str) -> int | None:
    try:
        time = datetime.strptime(text, form)
    except ValueError:
        return None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
