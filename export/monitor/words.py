"""How figures are written for people."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from shortlist.export.monitor.drift import LARGE, MODERATE
from shortlist.export.monitor.figures import EXPORT, FIRST, Served

__all__ = ["age", "drift", "drift_notes", "moment", "name_of", "seconds"]

_COMPARED: Final = {
    EXPORT: "drift of {} is measured from the held-out queries of the export",
    FIRST: "drift of {} is measured from the first lists, without a reference in a manifest",
    None: "no drift of {}, as --reference has no lists of the version",
}
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


def drift(index: float | None, origin: str | None) -> str:
    """Return what a stability index means."""
    if index is None:
        return "no reference" if origin is None else "too few lists"
    return "large" if index > LARGE else "moderate" if index > MODERATE else "none"


def drift_notes(served: Sequence[Served]) -> list[str]:
    """Return what each version's lists were compared with; nothing if --reference has all."""
    compared: dict[tuple[str, str | None], list[str]] = {}
    for each in served:
        version = f"{each.model}/{'?' if each.version is None else each.version}"
        for what, origin, index in (
            ("scores", each.drift.scores_from, each.drift.scores),
            ("histories", each.drift.histories_from, each.drift.histories),
        ):
            if index is not None or origin is None:
                versions = compared.setdefault((what, origin), [])
                versions += [version] if version not in versions else []
    return [
        f"{_COMPARED[origin].format(what)}: {', '.join(versions)}"
        for (what, origin), versions in compared.items()
        if origin in _COMPARED
    ]
