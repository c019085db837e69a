"""What to load or unload next so that a model never goes without an available version.

TensorFlow Serving's availability-preserving policy: load the newest aspired version
first, and give up an old one only when a new one serves. Pure; the manager acts on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Action", "ActionKind", "Phase", "VersionView", "next_action"]


class Phase(Enum):
    """Where the manager stands with one version; finer than what clients are shown."""

    NEW = auto()
    LOADING = auto()
    READY = auto()
    UNLOADING = auto()
    DISABLED = auto()
    ERROR = auto()


@dataclass(frozen=True, kw_only=True)
class VersionView:
    """One managed version of a model.

    Attributes:
        version: Its number.
        phase: Where the manager stands with it.
        aspired: Whether the configuration and the file system still ask for it.
    """

    version: int
    phase: Phase
    aspired: bool


class ActionKind(Enum):
    """Unloading comes first: it makes room for what is loaded."""

    UNLOAD = auto()
    LOAD = auto()


@dataclass(frozen=True, kw_only=True)
class Action:
    """The next thing to do for a model."""

    kind: ActionKind
    version: int


def next_action(versions: Iterable[VersionView]) -> Action | None:
    """The next step for one model, or None when there is nothing to do.

    Args:
        versions: All managed versions of the model, in any order.
    """
    views = list(versions)
    aspired = [view for view in views if view.aspired]
    leaving = [v.version for v in views if not v.aspired and v.phase is Phase.READY]
    replaced = not aspired or any(view.phase is Phase.READY for view in aspired)
    if leaving and (replaced or len(leaving) > 1):
        return Action(kind=ActionKind.UNLOAD, version=min(leaving))
    waiting = [view.version for view in aspired if view.phase is Phase.NEW]
    if waiting:
        return Action(kind=ActionKind.LOAD, version=max(waiting))
    return None
