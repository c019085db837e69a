"""Which column of a source is what: named by the user, or known by a usual name."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from shortlist.export.data.config import DataError, option_of
from shortlist.export.data.reading.locations import listed

__all__ = [
    "FIELDS",
    "Role",
    "check_roles",
    "described",
    "find_column",
    "no_column",
    "plain_name",
]

Role = Literal["users", "candidates", "ratings", "times", "titles", "events", "weights"]

# Without regard to case, blanks, `_`, `-` and `.`; earlier ones take precedence.
_USUAL: Mapping[Role, Sequence[str]] = {
    "users": (
        *("userid", "user", "uid", "customerid", "customer", "clientid", "visitorid", "memberid"),
        *("accountid", "reviewerid", "userpseudoid", "personid", "profileid", "buyerid"),
        *("shopperid", "playerid", "subscriberid", "username"),
    ),
    "candidates": (
        *("candidateid", "candidate", "itemid", "item", "productid", "product", "movieid"),
        *("articleid", "stockcode", "sku", "asin", "parentasin", "contentid", "bookid", "isbn"),
        *("trackid", "songid", "videoid", "businessid", "gameid", "offerid", "listingid"),
        *("newsid", "documentid", "adid", "goodsid", "recipeid"),
    ),
    "ratings": ("rating", "ratings", "stars", "userrating"),
    "times": (
        *("timestamp", "eventtime", "eventtimestamp", "time", "ts", "datetime", "date"),
        *("createdat", "unixreviewtime", "invoicedate", "orderdate", "purchasedate", "eventdate"),
        *("occurredat", "unixtimestamp", "timestampms", "unixtime"),
    ),
    "titles": ("title", "name", "productname", "itemname", "movietitle", "producttitle"),
    "events": (),  # only those that are named
    "weights": (),
}
# Field of `DataConfig` that names the column.
FIELDS: Mapping[str, str] = {
    "users": "user_column",
    "candidates": "candidate_column",
    "ratings": "rating_column",
    "times": "timestamp_column",
    "titles": "title_column",
    "events": "event_column",
    "weights": "weight_column",
}
_IGNORED = re.compile(r"[\s_.\-]+")


def find_column(
    role: Role, header: Sequence[str], named: str | None, *, default: str | None = None
) -> str | None:
    """Return the column of a role, or None if no name fits.

    Args:
        role: Role.
        header: Names of the columns.
        named: Name that was given; the usual names count only if it is None or `default`.
        default: Name that stands for the usual ones.
    """
    if named is not None and (named in header or named != default):
        return named
    plain = {plain_name(name): name for name in reversed(header)}
    return next((plain[usual] for usual in _USUAL[role] if usual in plain), None)


def no_column(role: Role, name: str, header: Sequence[str], option: str | None = None) -> DataError:
    """Return the error for a source in which no column has a role."""
    option = option or option_of(FIELDS[role])
    data = (
        ""
        if any(cell and not _number(cell) for cell in header)
        else ("; its first line seems to be data: add a line with names")
    )
    return DataError(
        f"{name} has no column of {role} with a usual name, only {listed(header)}; name it "
        f"with {option}{data}"
    )


def check_roles(name: str, roles: Mapping[str, str | None], others: Collection[str]) -> None:
    """Check that no column has two roles.

    Args:
        name: Name of the source in messages.
        roles: Column of each role, or None.
        others: Further columns, such as contexts.

    Raises:
        DataError: A column has two roles.
    """
    seen: dict[str, str] = {}
    for role, column in [*roles.items(), *(("context", column) for column in others)]:
        if column is None:
            continue
        if column in seen:
            raise DataError(
                f"{name}: {seen[column]} and {role} cannot share the column {column!r}; name "
                "another column for one of them"
            )
        seen[column] = role


def described(
    header: Sequence[str], roles: Mapping[str, str | None], contexts: Collection[str]
) -> str:
    """Return in one line which columns are read as what, and which are not read."""
    named = [(column, role) for role, column in roles.items() if column]
    named += [(column, "context") for column in contexts]
    read = ", ".join(f"{column} as {role}" for column, role in named)
    rest = [name for name in header if name and name not in dict(named)]
    return f"reading {read}" + (f"; not read: {listed(rest)}" if rest else "")


def plain_name(name: str) -> str:
    """Return the name of a column without case, blanks, `_`, `-` and `.`."""
    return _IGNORED.sub("", name.casefold())


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
