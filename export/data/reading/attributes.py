"""Attributes of candidates and users from columns of any type."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortlist.export.data.config import AttributeType, DataError
from shortlist.export.data.dataset import Attribute
from shortlist.export.data.reading.rows import Rows
from shortlist.export.data.reading.values import plain_text, trimmed

__all__ = ["attribute_of", "typed"]

# Stand for a missing value among numbers, without regard to case.
_UNKNOWN = (
    *("", "n/a", "na", "nan", "null", "none", "unknown", "undefined", "missing", "-", "--", "?"),
    *("#n/a", "<na>", "\\n", "nil", "."),
)
# 00012 is no number, but a code; so is a number of more digits than a double has.
_NUMBER = r"^[+-]?(?:(?:0|[1-9]\d{0,14})(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?$"
_DATE = r"^\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?$"
_SEPARATOR = "|"


def attribute_of(rows: Rows, name: str, kind: AttributeType | None = None) -> Attribute:
    """Return the attribute of a column.

    Numbers and dates stay numbers; other texts are split at `|`; lists are several values.
    Delimited text that spells numbers, but for some usual signs of missing values, is numbers.

    Args:
        rows: Rows with the column.
        name: Name of the column.
        kind: `text` or `number`; None to find out.

    Raises:
        DataError: The type of the column is not supported, or it does not hold numbers.
    """
    column = rows.columns.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _values([[str(v) for v in row or () if v is not None] for row in column.to_pylist()])
    if kind != "text":
        column = _numeric(rows, name, column, required=kind == "number")
        if pa.types.is_floating(column.type):
            numbers = column.to_numpy().astype(np.float64)
            return Attribute(numbers=np.where(np.isfinite(numbers), numbers, np.nan))
    try:
        text = column.cast(pa.string()).to_pylist()
    except pa.ArrowNotImplementedError as exc:
        raise DataError(
            f"{rows.name}, column {name!r} is of type {column.type}, which is not supported; "
            "remove it or convert it to text or numbers"
        ) from exc
    return _values([(value or "").split(_SEPARATOR) for value in text])


def typed(rows: Rows) -> pa.Table:
    """Return the columns with texts that all spell numbers or booleans converted to these."""
    columns = {}
    for name in rows.columns.column_names:
        column = rows.columns.column(name)
        if pa.types.is_string(column.type):
            for kind in (pa.int64(), pa.float64(), pa.bool_()):
                try:
                    column = column.cast(kind)
                    break
                except pa.ArrowInvalid:
                    continue
        columns[name] = column
    return pa.table(columns)


def _numeric(rows: Rows, name: str, column: pa.ChunkedArray, *, required: bool) -> pa.ChunkedArray:
    """Return a column as float64 if it holds numbers or dates, else as it is."""
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        return seconds.cast(pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64(), safe=False)
    if not plain_text(kind):
        return column
    texts = trimmed(column)
    unknown = pc.fill_null(pc.is_in(pc.utf8_lower(texts), pa.array(_UNKNOWN)), True)
    known = texts.filter(pc.invert(unknown))
    if not len(known):
        return column
    if pc.all(pc.match_substring_regex(known, _DATE)).as_py():
        try:
            times = pc.if_else(unknown, None, texts).cast(pa.timestamp("ns"))
        except pa.ArrowInvalid:
            return column
        return _numeric(rows, name, times, required=False)
    numbers = pc.match_substring_regex(known, _NUMBER)
    if pc.all(numbers).as_py():
        signs = pc.and_(unknown, pc.fill_null(pc.not_equal(texts, ""), False))
        if pc.any(signs).as_py():
            signs = texts.filter(signs)
            rows.note(
                f"{name!r} is missing in {len(signs):,} more rows, which hold "
                + ", ".join(map(repr, sorted(set(signs.to_pylist()))))
            )
        return pc.if_else(unknown, None, texts).cast(pa.float64())
    if required:
        odd = known.filter(pc.invert(numbers))[0].as_py()
        raise DataError(
            f"{rows.name}, column {name!r} holds {odd!r}, which is not a number; correct it, or "
            f"read it as text: --attribute-type {name}=text"
        )
    return column


def _values(rows: Sequence[Sequence[str]]) -> Attribute:
    return Attribute(
        values=tuple(tuple(dict.fromkeys(v.strip() for v in row if v.strip())) for row in rows)
    )
