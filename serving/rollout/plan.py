"""The plan of a rollout: from a state to a goal, in steps that are each safe by themselves.

Pure: nothing here asks a server or a file. The order comes from how TensorFlow Serving
takes a configuration: it checks labels before it loads versions, so a label moves in a
later step than the one that loads its version; and it lets a version go whose label
remains, so a version goes in a later step than the one that moves its last label.
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
    """Where a rollout leads.

    Attributes:
        versions: Versions to keep loaded, besides those that labels point at.
        labels: Version by label, for the labels that rollouts manage.
        why: What reaching it means, for people.
        trusted: Versions that need no check before they get a label.
    """

    versions: frozenset[int]
    labels: Mapping[str, int]
    why: str
    trusted: frozenset[int] = frozenset()

    @property
    def keep(self) -> frozenset[int]:
        """All versions that must be AVAILABLE at the goal."""
        return self.versions | frozenset(self.labels.values())


class StepKind(StrEnum):
    """What a step does."""

    LOAD = "load"  # more versions; labels stay
    LABEL = "label"  # labels move; versions stay
    UNLOAD = "unload"  # fewer versions; labels stay
    RECORD = "record"  # only the configuration file is behind


@dataclass(frozen=True, kw_only=True)
class Step:
    """One configuration to bring to every server, and what to wait for.

    Attributes:
        kind: What it does.
        name: Model name.
        entry: What the configuration file holds after it.
        available: Versions that every server must have AVAILABLE after it.
        check: Versions that must answer known queries on every server before it.
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
    """Steps through several goals, one after the other.

    Raises:
        RolloutError: See `plan`.
    """
    steps: list[Step] = []
    for goal in goals:
        found = plan(state, goal)
        steps += found
        if found:
            state = state.with_entry(found[-1].entry)
    return steps


def plan(state: ServableState, goal: Goal) -> list[Step]:
    """Steps from a state to a goal; empty where the goal is reached.

    Each step leads on from whatever the steps before it left, and from wherever a
    controller was killed: the plan made then is a rest of this one.

    Args:
        state: As observed; at least one server.
        goal: Where to go.

    Raises:
        RolloutError: A version that the goal needs is not in the repository.
    """
    foreign = state.foreign_labels()
    labels = {**foreign, **goal.labels}
    keep = goal.keep | frozenset(foreign.values())
    _require_published(state, goal.keep)
    steps = []
    # Versions whose files are gone cannot be asked for: a server that starts waits for them.
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
    """What the step sends to one server.

    While versions load, each server keeps its own labels: a replica that was restarted
    from an older file has others, and would refuse labels of versions that it lacks.
    """
    if step.kind is not StepKind.LOAD:
        return step.entry
    versions = set(step.entry.versions or ()) | set(server.labels.values())
    return ModelEntry(versions=tuple(sorted(versions)), labels=dict(server.labels))


def _require_published(state: ServableState, versions: frozenset[int]) -> None:
    available = [server.available for server in state.servers]
    missing = sorted(versions - frozenset(state.published))
    # A version whose files are gone still answers where it is loaded, for a moment: the
    # server's poller is about to unload it. No goal may rest on it.
    if missing:
        there = _join(state.published) or "none"
        loaded = any(missing[0] in found for found in available)
        raise RolloutError(
            f"version {missing[0]} of {state.name!r} is not in the repository"
            f"{', though a server still holds it' if loaded else ''}; versions there: {there}"
        )


def _recorded_labels(state: ServableState) -> Mapping[str, int]:
    """Labels that all servers have already, or that the file promises to one that restarts."""
    if state.recorded is not None and state.recorded.labels:
        return state.recorded.labels
    first, *others = state.servers
    return {
        label: at
        for label, at in first.labels.items()
        if all(server.labels.get(label) == at for server in others)
    }


def _to_check(state: ServableState, goal: Goal) -> tuple[int, ...]:
    """Versions that get a label which they do not have on every server yet."""
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
