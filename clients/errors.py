"""The one tree of errors that the clients raise, over REST and gRPC alike."""

__all__ = ["ServingError"]


class ServingError(Exception):
    """Base of every error that a client raises about a call."""
