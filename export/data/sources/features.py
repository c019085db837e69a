"""Attributes of users and circumstances of interactions, from the rows of any source."""

import dataclasses
import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Attribute, Context, Dataset
from shortlist.export.data.sources._assemble import merge_rows, natural_order

__all__ = ["UserTable", "context_of", "with_times", "with_users"]

log = logging.getLogger(__name__)

_DAY = 86_400
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday
# Dates have one time of day; in local time, daylight saving gives them a second one.
_TIMES_OF_DATES = 2
# That are compared to find near spellings for a message.
_COMPARED_IDS, _COMPARED_ROWS = 2000, 50


@dataclass(frozen=True, kw_only=True)
class UserTable:
    """Attributes of users; rows with the same id are united.

    Attributes:
        ids: `[num_rows]` user ids.
        attributes: Attributes of the rows by name.
        where: Name of the table in messages.
    """

    ids: Sequence[str]
    attributes: Mapping[str, Attribute]
    where: str


def with_users(dataset: Dataset, table: UserTable) -> Dataset:
    """Return the dataset with the attributes of its users, which replace those of the same name.

    Raises:
        DataError: No user of the dataset is in the table.
    """
    position_of, attributes = merge_rows(table.ids, table.attributes)
    rows = np.asarray([position_of.get(user, -1) for user in dataset.user_ids])
    found = int(np.count_nonzero(rows >= 0))
    if not found:
        raise DataError(_no_match(dataset, table))
    level = logging.INFO if 2 * found >= len(rows) else logging.WARNING
    log.log(level, "%s describes %d of %d users", table.where, found, len(rows))
    own = {name: _take(attribute, rows) for name, attribute in attributes.items()}
    return dataclasses.replace(dataset, user_attributes={**dataset.user_attributes, **own})


def _no_match(dataset: Dataset, table: UserTable) -> str:
    users = {user.casefold(): user for user in dataset.user_ids[:_COMPARED_IDS]}
    row, user = table.ids[0], dataset.user_ids[0]
    for other in table.ids[:_COMPARED_ROWS]:
        if near := difflib.get_close_matches(other.casefold(), users, n=1):
            row, user = other, users[near[0]]
            break
    return (
        f"{table.where} has none of the {len(dataset.user_ids)} users of {dataset.name}: it has "
        f"{row!r}, the interactions have {user!r}; write the ids identically, or give the "
        "file of these users"
    )


def _take(attribute: Attribute, rows: npt.NDArray[np.int64]) -> Attribute:
    """Return an attribute of other rows; nothing for row -1."""
    if attribute.values is not None:
        values = attribute.values
        return Attribute(values=tuple(values[row] if row >= 0 else () for row in rows.tolist()))
    assert attribute.numbers is not None
    return Attribute(numbers=np.where(rows >= 0, attribute.numbers[rows], np.nan))


def context_of(values: Sequence[str], codes: npt.NDArray[np.int32]) -> Context:
    """Return a context of distinct values in natural order; an empty value is unknown.

    Args:
        values: Values, which may have spaces around them.
        codes: Position of each interaction's value in `values`; -1 if unknown.
    """
    texts = [value.strip() for value in values]
    distinct = sorted(set(texts) - {""})
    order, rank = natural_order(distinct)
    rank_of = dict(zip(distinct, rank.tolist(), strict=True))
    ranks = np.asarray([*(rank_of.get(text, -1) for text in texts), -1], np.int32)
    return Context(values=tuple(distinct[i] for i in order), codes=ranks[codes])


def with_times(dataset: Dataset) -> Dataset:
    """Return the dataset with hour and weekday (UTC) as context, unless its times are only dates.

    A context column or an attribute of users of the same name takes precedence.
    """
    if dataset.timestamps is None:
        return dataset
    days, seconds = np.divmod(dataset.timestamps, _DAY)
    if np.count_nonzero(np.bincount(seconds, minlength=_DAY)) <= _TIMES_OF_DATES:
        return dataset
    weekdays = (days + _FIRST_WEEKDAY) % len(_WEEKDAYS)
    own = {
        "hour": Context(values=tuple(map(str, range(24))), codes=(seconds // 3600).astype(np.int8)),
        "weekday": Context(values=_WEEKDAYS, codes=weekdays.astype(np.int8)),
    }
    new = {name: context for name, context in own.items() if name not in dataset.user_attributes}
    return dataclasses.replace(dataset, context={**new, **dataset.context})
