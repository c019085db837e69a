"""Errors about model repositories and model servers."""

__all__ = ["ModelServerError", "RepositoryError"]


class RepositoryError(ValueError):
    """A model repository cannot be read or written as asked."""


class ModelServerError(RuntimeError):
    """A model server could not be started, or ended when it should not."""
