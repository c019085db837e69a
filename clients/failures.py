"""What commands report in one line instead of a traceback."""

__all__ = ["CommandError"]


class CommandError(Exception):
    """A failure with its remedy in the message: one line on stderr, exit status 1."""
