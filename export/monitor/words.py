"""How figures are written for people."""

from datetime import UTC, datetime
from typing import Final

from shortlist.export.monitor.drift import LARGE, MODERATE
from shortlist.export.monitor.figures import Served

__all__ = ["age", "drift", "moment", "name_of", "seconds"]

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def name_of(served: Served) -> str:
    """Return model, version and label, as in `retrieval_ivf/3 stable`."""
    version = "?" if served.version is None else served.version
    return f"{served.model}/{version}" + (f" {served.label}" if served.label else "")


def moment(time: float) -> str:
    """Return a time to the minute, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


def seconds(length: float) -> str:
    """Return a length of time in the largest unit that divides it, such as `7 d`."""
    for unit, size in _UNITS:
        if length % size == 0:
            return f"{length / size:g} {unit}"
    return f"{length:g} s"


def age(length: float) -> str:
    """Return a length of time in the largest unit of which it has two, such as `36 h`."""
    for unit, size in _UNITS:
        if length >= 2 * size:
            return f"{length / size:.0f} {unit}"
    return f"{length:.0f} s"


def drift(index: float | None) -> str:
    """Return what a stability index means."""
    if index is None:
        return "too few lists"
    return "large" if index > LARGE else "moderate" if index > MODERATE else "none"
