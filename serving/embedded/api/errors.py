"""Short ways to make the commonest errors."""

from shortlist.serving.embedded.api.interfaces import Code, StatusError

__all__ = ["invalid"]


def invalid(message: str) -> StatusError:
    """An INVALID_ARGUMENT error."""
    return StatusError(Code.INVALID_ARGUMENT, message)
