"""Errors about model repositories and model servers."""

from shortlist.clients.errors import ShortlistError

__all__ = ["ModelServerError", "RepositoryError", "RolloutError"]


class RepositoryError(ShortlistError, ValueError):
    """A model repository cannot be read or written as asked."""


class ModelServerError(ShortlistError, RuntimeError):
    """A model server could not be started, or ended when it should not."""


class RolloutError(ShortlistError, RuntimeError):
    """A rollout cannot be planned, or did not reach its goal."""
