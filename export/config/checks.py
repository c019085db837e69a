"""Checks of settings; each raises `ValueError`."""

import math
from collections.abc import Sequence

__all__ = [
    "require",
    "require_choice",
    "require_leaves",
    "require_not_negative",
    "require_positive",
]


def require(condition: bool, message: str) -> None:
    """Raise the message unless a condition holds."""
    if not condition:
        raise ValueError(message)


def require_positive(**values: float | None) -> None:
    """Require values above 0, or `None`."""
    for name, value in values.items():
        if value is not None:
            require(value > 0, f"{name} must be positive, got {value}")


def require_not_negative(**values: float) -> None:
    """Require finite values of at least 0."""
    for name, value in values.items():
        require(value >= 0 and math.isfinite(value), f"{name} must not be negative, got {value}")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Require one of some values."""
    require(value in choices, f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_leaves(num_leaves: int | None, num_leaves_to_search: int | None) -> None:
    """Require no more leaves to search than there are."""
    if num_leaves is not None and num_leaves_to_search is not None:
        require(
            num_leaves_to_search <= num_leaves,
            "num_leaves_to_search must be at most num_leaves, got "
            f"{num_leaves_to_search} > {num_leaves}",
        )
