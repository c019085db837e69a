"""Errors about model repositories and model servers."""

from clients.failures import CommandError

__all__ = ["ModelServerError", "RepositoryError", "RolloutError"]


class RepositoryError(CommandError, ValueError):
    """A model repository cannot be read or written as asked."""


class ModelServerError(CommandError, RuntimeError):
    """A model server could not be started, or ended when it should not."""


class RolloutError(CommandError, RuntimeError):
    """A rollout cannot be planned, or did not reach its goal."""
