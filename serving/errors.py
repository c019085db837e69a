"""Errors about model repositories and model servers."""

from collections.abc import Mapping

from shortlist.clients.errors import ShortlistError

__all__ = ["LoadError", "ModelServerError", "RepositoryError", "RolloutError"]


class RepositoryError(ShortlistError, ValueError):
    """A model repository cannot be read or written as asked."""


class ModelServerError(ShortlistError, RuntimeError):
    """A model server could not be started, or ended when it should not."""


class LoadError(ModelServerError):
    """A model server did not load some of its versions.

    Attributes:
        message: Text before the failures.
        failures: The server's reasons by `NAME version N`.
    """

    def __init__(self, message: str, failures: Mapping[str, str], *, remedy: str = "") -> None:
        """Make an error whose text names every failure.

        Args:
            message: Text before the failures.
            failures: The server's reasons by `NAME version N`.
            remedy: What to do.
        """
        reasons = ", ".join(f"{version} ({reason})" for version, reason in failures.items())
        super().__init__("; ".join(filter(None, [f"{message} {reasons}", remedy])))
        self.message = message
        self.failures = failures


class RolloutError(ShortlistError, RuntimeError):
    """A rollout cannot be planned, or did not reach its goal."""
