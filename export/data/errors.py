"""Errors of reading data."""

from shortlist.clients.errors import ShortlistError

__all__ = ["DataError"]


class DataError(ShortlistError, ValueError):
    """Unusable data. The message names file, row, column and remedy in one line."""
