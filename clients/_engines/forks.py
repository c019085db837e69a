"""Detects forks without a system call per request."""

import os

__all__ = ["generation"]

_generation = 0


def generation() -> int:
    """Return a number that differs between a forked child and its parent."""
    return _generation


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)
