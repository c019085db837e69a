"""Results that take long to make, shared by all workers of a run."""

import fcntl
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

__all__ = ["made_once"]


T = TypeVar("T")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """Return the result of the first worker that asked for it, for reading only.

    Args:
        factory: Makes the folders of this run.
        name: Name of the result.
        make: Makes it, in a folder that lasts as long as the run. It must be picklable.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    stored = root / f"{name}.pickle"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stored.exists():
            result = make(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root)))
            stored.write_bytes(pickle.dumps(result))
    loaded: T = pickle.loads(stored.read_bytes())
    return loaded
