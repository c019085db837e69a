"""Plan a rollout: from a state to a goal, in steps that are each safe on their own.

Pure: no server and no file is read. The order follows from how TensorFlow Serving applies a
configuration. It checks labels before it loads versions, so a label moves in a later step
than the one that loads its version. It unloads a version even if a label still points at it,
so a version is unloaded in a later step than the one that moves its last label.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.server_config import ModelEntry
from shortlist.serving.rollout.state import ServableState, ServerState

__all__ = ["Goal", "Step", "StepKind", "entry_for", "plan", "plan_all"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Versions and labels that a rollout leads to.

    Attributes:
        versions: Versions to keep loaded, in addition to those that labels point at.
        labels: Version by label, for the labels that rollouts manage.
        why: Meaning of the goal, for messages.
        trusted: Versions that need no check before they get a label.
    """

    versions: frozenset[int]
    labels: Mapping[str, int]
    why: str
    trusted: frozenset[int] = frozenset()

    @property
    def keep(self) -> frozenset[int]:
        """Versions that are AVAILABLE at the goal."""
        return self.versions | frozenset(self.labels.values())


class StepKind(StrEnum):
    """Kind of step."""

    LOAD = "load"  # add versions; labels stay
    LABEL = "label"  # move labels; versions stay
    UNLOAD = "unload"  # remove versions; labels stay
    RECORD = "record"  # update only the configuration file


@dataclass(frozen=True, kw_only=True)
class Step:
    """Configuration for every server, and the state to wait for.

    Attributes:
        kind: Kind of step.
        name: Model name.
        entry: Entry of the configuration file afterwards.
        available: Versions that are AVAILABLE on every server afterwards.
        check: Versions that must answer golden queries on every server before.
    """

    kind: StepKind
    name: str
    entry: ModelEntry
    available: frozenset[int]
    check: tuple[int, ...] = ()

    def __str__(self) -> str:
        versions = _join(self.entry.versions or ())
        labels = _join(f"{label}={at}" for label, at in sorted(self.entry.labels.items()))
        match self.kind:
            case StepKind.LOAD:
                does = f"load: serve versions {versions}, wait until they are AVAILABLE"
            case StepKind.LABEL:
                checked = f"check version {_join(self.check)}, then " if self.check else ""
                does = f"label: {checked}set {labels}"
            case StepKind.UNLOAD:
                does = f"unload: serve version {versions} alone, with {labels or 'no labels'}"
            case StepKind.RECORD:
                does = f"record: versions {versions} with {labels or 'no labels'}"
        return f"{self.name}: {does}"


def plan_all(state: ServableState, goals: Sequence[Goal]) -> list[Step]:
    """Return the steps through several goals, one after the other.

    Raises:
        RolloutError: See `plan`.
    """
    steps: list[Step] = []
    for goal in goals:
        added = plan(state, goal)
        steps += added
        if added:
            state = state.with_entry(added[-1].entry)
    return steps


def plan(state: ServableState, goal: Goal) -> list[Step]:
    """Return the steps from a state to a goal; empty if the goal is reached.

    If a controller is killed, the next plan is the rest of this one.

    Args:
        state: Observed state with at least one server.
        goal: The goal.

    Raises:
        RolloutError: A version that the goal needs is not in the repository.
    """
    foreign = state.foreign_labels()
    labels = {**foreign, **goal.labels}
    keep = goal.keep | frozenset(foreign.values())
    _require_published(state, goal.keep)
    steps = []
    # Versions without files must not be configured: a server waits for them at startup.
    loaded = (state.present() | keep) & (frozenset(state.published) | keep)
    kept_labels = {label: at for label, at in _recorded_labels(state).items() if at in loaded}
    if any(not keep <= server.available for server in state.servers):
        steps.append(
            Step(
                kind=StepKind.LOAD,
                name=state.name,
                entry=ModelEntry(versions=tuple(sorted(loaded)), labels=kept_labels),
                available=keep,
            )
        )
    if any(dict(server.labels) != labels or server.dangling for server in state.servers):
        steps.append(
            Step(
                kind=StepKind.LABEL,
                name=state.name,
                entry=ModelEntry(versions=tuple(sorted(loaded)), labels=labels),
                available=keep,
                check=_to_check(state, goal),
            )
        )
    final = ModelEntry(versions=tuple(sorted(keep)), labels=labels)
    if loaded - keep or any(server.present - keep for server in state.servers):
        steps.append(Step(kind=StepKind.UNLOAD, name=state.name, entry=final, available=keep))
    elif (steps[-1].entry if steps else state.recorded) != final:
        steps.append(Step(kind=StepKind.RECORD, name=state.name, entry=final, available=keep))
    return steps


def entry_for(step: Step, server: ServerState) -> ModelEntry:
    """Return what the step sends to one server.

    While versions load, each server keeps its own labels: a replica that was restarted from
    an older file has others, and would refuse labels of versions that it lacks.
    """
    if step.kind is not StepKind.LOAD:
        return step.entry
    versions = set(step.entry.versions or ()) | set(server.labels.values())
    return ModelEntry(versions=tuple(sorted(versions)), labels=dict(server.labels))


def _require_published(state: ServableState, versions: frozenset[int]) -> None:
    available = [server.available for server in state.servers]
    missing = sorted(versions - frozenset(state.published))
    # A loaded version without files still answers until the server's poller unloads it, so no
    # goal may rely on it.
    if missing:
        there = _join(state.published) or "none"
        loaded = any(missing[0] in versions for versions in available)
        labelled = any(missing[0] in server.labels.values() for server in state.servers)
        remedy = "; choose one: `shortlist rollback --to VERSION`" if labelled else ""
        raise RolloutError(
            f"version {missing[0]} of {state.name!r} is not in the repository"
            f"{', though a server still holds it' if loaded else ''}; published: {there}{remedy}"
        )


def _recorded_labels(state: ServableState) -> Mapping[str, int]:
    """Return the labels of the file, or those on which all servers agree."""
    if state.recorded is not None and state.recorded.labels:
        return state.recorded.labels
    first, *others = state.servers
    return {
        label: at
        for label, at in first.labels.items()
        if all(server.labels.get(label) == at for server in others)
    }


def _to_check(state: ServableState, goal: Goal) -> tuple[int, ...]:
    """Return the versions that get a label and do not have one on every server yet."""
    return tuple(
        sorted(
            {
                at
                for label, at in goal.labels.items()
                if at not in goal.trusted
                and not all(at in server.labels.values() for server in state.servers)
            }
        )
    )


def _join(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
