"""Turns columns into ids, numbers and attributes, whatever form they were written in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.export.data.config import DataError

if TYPE_CHECKING:
    from shortlist.export.data.reading.rows import Rows

__all__ = [
    "MISSING",
    "Ids",
    "codes_of",
    "encoded",
    "ids_of_column",
    "numbers_of_column",
    "plain_text",
    "required_numbers",
    "trimmed",
]

ID = pa.dictionary(pa.int32(), pa.string())
# Missing values where they are ids or numbers, unless quoted.
MISSING = ("", "nan", "NaN", "NAN", "None", "NULL", "null", "NA", "N/A", "<NA>", "\\N")
_WHOLE = r"^[+-]?\d+(\.0+)?$"
_LARGEST_WHOLE_DOUBLE = 2.0**53
_LONGEST_ID = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Ids of rows.

    Attributes:
        values: Distinct ids.
        codes: int32 `[num_rows]`, positions in `values`; -1 if missing.
    """

    values: Sequence[str]
    codes: npt.NDArray[np.int32]

    def texts(self) -> list[str]:
        """Return the id of each row, of which none is missing."""
        return [self.values[code] for code in self.codes.tolist()]


def plain_text(kind: pa.DataType) -> bool:
    """Return whether values are texts, in a dictionary or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def encoded(column: pa.Array, where: str) -> pa.Array:
    """Return a column of ids as a dictionary of texts, numbers with all their digits.

    Raises:
        DataError: They are neither texts nor numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):
        column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = [_spelled(number, where) for number in column.dictionary.to_pylist()]
        column = pa.DictionaryArray.from_arrays(column.indices, pa.array(texts, pa.string()))
    elif not plain_text(kind):
        tests = (pa.types.is_integer, pa.types.is_decimal, pa.types.is_null, pa.types.is_binary)
        if not any(test(kind) for test in tests):
            raise DataError(f"{where} is of type {kind}; ids must be texts or numbers: convert it")
        column = column.cast(pa.string())
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.cast(ID)


def _spelled(number: float | None, where: str) -> str | None:
    if number is None or math.isnan(number):
        return None
    if number.is_integer() and abs(number) >= _LARGEST_WHOLE_DOUBLE:
        raise DataError(
            f"{where} holds the id {number:.0f} as a floating-point number, which does "
            "not have all its digits; write ids as whole numbers or texts"
        )
    return repr(number)


def ids_of_column(rows: "Rows", name: str, *, optional: bool = False, check: bool = True) -> Ids:
    """Return the ids of a column that was read as ids; add missing and odd ones to the faults.

    Blanks around ids do not count. If all ids are whole numbers, `12550.0` is `12550`.

    Args:
        rows: Rows with the column.
        name: Name of the column.
        optional: Missing ids are no fault.
        check: Check for line breaks and the like, which ids do not have.
    """
    dictionary, codes = codes_of(rows.columns.column(name))
    dictionary = pc.fill_null(dictionary, "")
    texts = trimmed(dictionary)
    blank = pc.not_equal(texts, dictionary)
    if pc.any(blank).as_py():
        rows.note(f"blanks around the values of {name!r} are removed")
    missing = pc.is_in(texts, pa.array(MISSING))
    if rows.quoted:  # unquoted ones are missing already
        missing = pc.or_(pc.and_(missing, blank), pc.equal(texts, ""))
    known = texts.filter(pc.invert(missing))
    if len(known) and pc.all(pc.match_substring_regex(known, _WHOLE)).as_py():
        whole = pc.replace_substring_regex(texts, r"\.0+$", "")
        if not whole.equals(texts):
            rows.note(f"the values of {name!r} are whole numbers, read without '.0'")
        texts = whole
    values = pc.unique(texts.filter(pc.invert(missing)))
    position_of = pc.fill_null(pc.index_in(texts, values), -1).to_numpy(zero_copy_only=False)
    position_of = np.where(missing.to_numpy(zero_copy_only=False), -1, position_of)
    codes = np.append(position_of, -1)[codes].astype(np.int32)
    if not optional:
        rows.faults.add(
            f", column {name!r} is empty",
            np.flatnonzero(codes < 0),
            "fill it in or remove the row",
        )
    if check:
        _check_ids(rows, name, values, codes)
    return Ids(values=values.to_pylist(), codes=codes)


def _check_ids(rows: "Rows", name: str, values: pa.Array, codes: npt.NDArray[np.int32]) -> None:
    for what, wrong, remedy in (
        (
            "holds a line break",
            pc.match_substring_regex(values, r"[\r\n]"),
            "is a quote not closed? Correct it, or remove the line break",
        ),
        ("holds a NUL", pc.match_substring(values, "\0"), "write the file again as text"),
        (
            f"is longer than {_LONGEST_ID >> 10} KiB",
            pc.greater(pc.binary_length(values), _LONGEST_ID),
            "correct or remove it",
        ),
    ):
        if pc.any(wrong).as_py():
            odd = np.append(wrong.to_numpy(zero_copy_only=False), False)
            rows.faults.add(f", column {name!r} {what}", np.flatnonzero(odd[codes]), remedy)


def trimmed(texts: pa.Array | pa.ChunkedArray) -> Any:
    """Return texts without blanks around them."""
    return pc.utf8_trim_whitespace(texts)


def numbers_of_column(
    rows: "Rows", name: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the numbers of a column, NaN for missing ones; and which values are no numbers.

    Raises:
        DataError: The column has a type without numbers.
    """
    column = rows.columns.column(name)
    kind = column.type
    if plain_text(kind):
        return _parsed(column)
    try:
        numbers = column.cast(pa.float64(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise DataError(
            f"{rows.name}, column {name!r} is of type {kind} and contains no numbers; convert it"
        ) from exc
    return np.asarray(numbers, np.float64), np.zeros(len(column), np.bool_)


def required_numbers(rows: "Rows", name: str) -> npt.NDArray[np.float64]:
    """Return the numbers of a column; add missing, odd and infinite ones to the faults.

    Raises:
        DataError: The column has a type without numbers.
    """
    numbers, odd = numbers_of_column(rows, name)
    endless = np.isinf(numbers)
    for wrong, what in ((odd, "is not a number"), (endless, "is not a finite number")):
        if wrong.any():
            value = rows.columns.column(name)[int(wrong.argmax())].as_py()
            rows.faults.add(
                f", column {name!r}: {value!r} {what}",
                np.flatnonzero(wrong),
                "correct or remove it",
            )
    empty = np.flatnonzero(np.isnan(numbers) & ~odd)
    rows.faults.add(f", column {name!r} is empty", empty, "fill it in or remove the row")
    return numbers


def codes_of(column: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Return the distinct values of a column, and the position of each row's; -1 if missing."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if not column.num_chunks:
        return pa.array([], column.type.value_type), np.empty(0, np.int32)
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return column.chunk(0).dictionary, np.concatenate(codes)


def _parsed(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    distinct, codes = codes_of(column)
    numbers = np.full(len(distinct) + 1, np.nan)  # the last one for missing values
    odd = np.zeros(len(distinct) + 1, np.bool_)
    for at, text in enumerate(distinct.to_pylist()):
        try:
            numbers[at] = math.nan if text is None or text.strip() in MISSING else float(text)
        except ValueError:
            odd[at] = True
    return numbers[codes], odd[codes]
