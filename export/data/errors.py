"""The one error of reading data."""

from shortlist.clients.errors import ShortlistError

__all__ = ["DataError"]


class DataError(ShortlistError, ValueError):
    """Data that cannot be used: one line that names file, row, column and remedy."""
