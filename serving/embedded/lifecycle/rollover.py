"""The next load or unload of a model, so that it always has an available version.

This is TensorFlow Serving's availability-preserving policy: load the newest aspired version
first, and unload an old version only when a new one serves. The code is pure; the manager
acts on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["Action", "ActionKind", "Phase", "VersionView", "next_action"]


class Phase(Enum):
    """Phase of a version in the manager; more detailed than the states that clients see."""

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
        version: Version number.
        phase: Phase in the manager.
        aspired: True while configuration and file system ask for it.
    """

    version: int
    phase: Phase
    aspired: bool


class ActionKind(Enum):
    """Kinds of actions. Unloads come first, to free memory for loads."""

    UNLOAD = auto()
    LOAD = auto()


@dataclass(frozen=True, kw_only=True)
class Action:
    """The next action for a model."""

    kind: ActionKind
    version: int


def next_action(versions: Iterable[VersionView]) -> Action | None:
    """Return the next action for one model; None if there is none.

    Args:
        versions: All managed versions of the model, in any order.
    """
    views = list(versions)
    aspired = [view for view in views if view.aspired]
    leaving = [v.version for v in views if not v.aspired and v.phase is Phase.READY]
    replaced = not aspired or any(view.phase is Phase.READY for view in aspired)
    if leaving and (replaced or len(leaving) > 1):
        return Action(kind=ActionKind.UNLOAD, version=min(leaving))
    new = [view.version for view in aspired if view.phase is Phase.NEW]
    if new:
        return Action(kind=ActionKind.LOAD, version=max(new))
    return None
