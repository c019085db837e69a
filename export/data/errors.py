"""The one error of reading data."""

__all__ = ["DataError"]


class DataError(ValueError):
    """Data that cannot be used: one line that names file, row, column and remedy."""
