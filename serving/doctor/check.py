"""Results of the checks of `shortlist doctor`."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Check", "Outcome", "ok", "problem", "warning"]


class Outcome(StrEnum):
    """Outcome of a check."""

    OK = "ok"
    WARNING = "warning"  # something is slower, or cannot be done here
    PROBLEM = "problem"  # a command will fail


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of a check.

    Attributes:
        name: Subject, such as `memory`.
        outcome: Outcome.
        found: Facts, for a bug report.
        remedy: Next step; `None` if there is nothing to do.
    """

    name: str
    outcome: Outcome
    found: str
    remedy: str | None = None


def ok(name: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, outcome=Outcome.OK, found=found)


def warning(name: str, found: str, remedy: str) -> Check:
    """Return a check that found what limits some commands."""
    return Check(name=name, outcome=Outcome.WARNING, found=found, remedy=remedy)


def problem(name: str, found: str, remedy: str) -> Check:
    """Return a check that found why a command will fail."""
    return Check(name=name, outcome=Outcome.PROBLEM, found=found, remedy=remedy)
