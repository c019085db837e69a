"""Goals of the verbs, given the current state. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.server_config import STABLE
from shortlist.serving.rollout.plan import Goal
from shortlist.serving.rollout.state import CANARY, MANAGED_LABELS, PREVIOUS, ServableState

__all__ = [
    "ACTIONS",
    "WAYS_BACK",
    "NothingToDoError",
    "abort",
    "canary",
    "finish",
    "goals_for",
    "promote",
    "rollback",
]

ACTIONS = ("canary", "promote", "rollback", "abort", "finish")
WAYS_BACK = frozenset({"rollback", "abort"})


class NothingToDoError(RolloutError):
    """A model has no canary to promote or abort, or no earlier version to go back to."""


def goals_for(action: str, state: ServableState, version: int | None = None) -> list[Goal]:
    """Return the goals of one verb, to reach one after the other.

    Args:
        action: One of `ACTIONS`.
        state: Observed state.
        version: Version to canary, to promote, or to roll back to.

    Raises:
        NothingToDoError: There is no canary, or no earlier version.
        RolloutError: The verb does not fit this state, or the servers disagreed before.
    """
    match action:
        case "canary":
            if version is None:
                raise RolloutError("a canary needs a version: `shortlist canary VERSION`")
            goals = canary(state, version)
        case "promote":
            goals = promote(state, version)
        case "rollback":
            goals = rollback(state, version)
        case "abort":
            goals = abort(state)
        case "finish":
            goals = finish(state)
        case _:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}, got {action!r}")
    if action not in WAYS_BACK:
        _refuse_disagreement(state, goals)
    return goals


def canary(state: ServableState, version: int) -> list[Goal]:
    """Unload the previous version first, so that at most two are ever in memory."""
    stable = _stable(state)
    running = state.label(CANARY)
    if version == stable:
        raise RolloutError(_already_serving(state, version))
    if running not in (None, stable, version):
        raise RolloutError(
            f"version {running} of {state.name!r} is the canary; "
            "`shortlist promote` or `shortlist abort` it first"
        )
    goals = [
        Goal(
            versions=frozenset({stable, version}),
            labels=_labels(stable=stable, canary=version),
            why=f"version {version} answers the canary's share, version {stable} the rest",
        )
    ]
    begun = running == version or version in state.present()
    if state.label(STABLE) is None or (state.present() - {stable, version} and not begun):
        # The first canary labels what is served before another version loads, because a call
        # without a label goes to the newest version.
        goals.insert(0, _alone(state, stable))
    return goals


def promote(state: ServableState, version: int | None = None) -> list[Goal]:
    """Make the canary stable; the version before stays loaded for a fast rollback.

    A given version becomes stable at once if nothing is stable yet, because there are no users
    to protect.
    """
    if state.label(STABLE) is None and version is not None:
        others = state.present() - {version}
        if others and version in state.published:
            raise RolloutError(
                f"no version of {state.name!r} is labelled stable, and the servers serve "
                f"{_join(others)}; `shortlist canary {version}` labels that stable and loads "
                f"version {version} alongside; `shortlist rollback --to {version}` moves all "
                "requests at once"
            )
        return [_alone(state, version)]
    stable = _stable(state)
    running, previous = state.label(CANARY), state.label(PREVIOUS)
    if running not in (None, stable):
        if version not in (None, running):
            raise RolloutError(
                f"version {version} of {state.name!r} is not the canary (version {running} is); "
                f"`shortlist promote {running}` or `shortlist abort` first"
            )
        return [
            Goal(
                versions=frozenset({running, stable}),
                labels=_labels(stable=running, canary=running, previous=stable),
                why=f"version {running} answers all requests, version {stable} stays loaded",
            )
        ]
    if version not in (None, stable):
        raise NothingToDoError(
            f"version {version} of {state.name!r} is not the canary (no canary runs); begin "
            f"with `shortlist canary {version}`"
        )
    if version is None and previous in (None, stable):
        raise NothingToDoError(f"{_no_canary(state, stable)}{_begin_with(state, stable)}")
    return [_settled(stable, previous, f"version {stable} already answers all requests")]


def rollback(state: ServableState, version: int | None = None) -> list[Goal]:
    """Return to a named version, from a running canary, or to the version before stable."""
    if version is not None:
        return [_alone(state, version)]
    stable = _stable(state)
    running, previous = state.label(CANARY), state.label(PREVIOUS)
    # While a canary runs, or its promotion is incomplete, `stable` is still good.
    if running not in (None, stable):
        return [_alone(state, stable)]
    if previous not in (None, stable):
        return [_alone(state, previous)]
    # A newer one is left of a rollback or a canary that was interrupted; it may be bad.
    if any(version > stable for version in _left_over(state, stable)):
        return [_alone(state, stable)]
    raise NothingToDoError(_no_earlier_version(state, stable))


def abort(state: ServableState) -> list[Goal]:
    """End a canary: unload its version, keep stable and the version before it."""
    stable = _stable(state)
    running, previous = state.label(CANARY), state.label(PREVIOUS)
    if _lacks_labels(state) or (running in (None, stable) and not _left_over(state, stable)):
        raise NothingToDoError(
            f"{_no_canary(state, stable)}; to serve another version: {_way_back(state, stable)}"
        )
    return [
        _settled(stable, previous, f"the canary has ended, version {stable} answers all requests")
    ]


def finish(state: ServableState) -> list[Goal]:
    """Unload the version before stable; a running canary stays."""
    stable = _stable(state)
    if _lacks_labels(state):
        raise NothingToDoError(f"{_no_canary(state, stable)}{_begin_with(state, stable)}")
    running = state.label(CANARY)
    running = stable if running is None else running
    return [
        Goal(
            versions=frozenset({stable, running}),
            labels=_labels(stable=stable, canary=running),
            why=f"version {stable} is served without the one before it",
        )
    ]


def _alone(state: ServableState, version: int) -> Goal:
    return Goal(
        versions=frozenset({version}),
        labels=_labels(stable=version, canary=version),
        why=f"version {version} of {state.name} answers all requests and is alone in memory",
        # It serves already, or did: a check would only delay the rollback.
        trusted=frozenset({version}) & state.present(),
    )


def _settled(stable: int, previous: int | None, why: str) -> Goal:
    labels = _labels(stable=stable, canary=stable, previous=previous)
    return Goal(versions=frozenset(labels.values()), labels=labels, why=why)


def _labels(*, stable: int, canary: int, previous: int | None = None) -> Mapping[str, int]:
    """Return the managed labels; `previous` exists only if there is another version to go to."""
    labels = {STABLE: stable, CANARY: canary}
    return labels if previous in (None, stable) else {**labels, PREVIOUS: previous}


def _stable(state: ServableState) -> int:
    """Return the version that users get: by label, else what a call without a label gets."""
    stable = state.label(STABLE)
    if stable is not None:
        return stable
    recorded = state.recorded.labels.get(STABLE) if state.recorded else None
    if recorded is not None:
        return recorded
    newest = {server.address: max(server.available, default=None) for server in state.servers}
    served = set(newest.values())
    if served == {None}:
        raise RolloutError(
            f"no server serves a version of {state.name!r}; start with "
            f"`shortlist promote VERSION` (published: {_join(state.published)})"
        )
    version, *others = served
    if version is None or others:
        where = ", ".join(f"{address}: {at or 'none'}" for address, at in newest.items())
        raise RolloutError(
            f"the servers serve different versions of {state.name!r} ({where}) and no label "
            "decides; give all of them one version first: `shortlist rollback --to VERSION` "
            f"(published: {_join(state.published)})"
        )
    return version


def _lacks_labels(state: ServableState) -> bool:
    recorded = state.recorded.labels if state.recorded else {}
    return state.label(STABLE) is None and STABLE not in recorded


def _left_over(state: ServableState, stable: int) -> frozenset[int]:
    """Return loaded or configured versions that no label needs, as an interrupted rollout leaves.

    A label that only some servers have moved still points where the file says. Before a file
    names versions, no rollout has loaded any.
    """
    if state.recorded is None or state.recorded.versions is None:
        return frozenset()
    needed = {stable, *(state.label(label) for label in MANAGED_LABELS)}
    return state.present() - needed - set(state.foreign_labels().values())


def _refuse_disagreement(state: ServableState, goals: Sequence[Goal]) -> None:
    """Refuse to move labels on servers that disagree, unless this verb's earlier run explains it.

    Such a run leaves labels where the file has them or where a goal puts them. A goal that the
    file holds already only brings lagging servers up to date.
    """
    recorded = state.recorded.labels if state.recorded else {}
    managed = {label: at for label, at in recorded.items() if label in MANAGED_LABELS}
    if managed == dict(goals[-1].labels):
        return
    for label in MANAGED_LABELS:
        explained = {None, state.label(label), recorded.get(label)}
        explained |= {goal.labels.get(label) for goal in goals}
        if not {server.labels.get(label) for server in state.servers} <= explained:
            raise RolloutError(
                f"{state.disagreement(label)} before this rollout, which changed nothing: an "
                "earlier rollout was interrupted (`shortlist rollout log`), or another process "
                "moved the label. Give all servers one version first: "
                f"`shortlist rollback --to {_stable(state)}`"
            )


def _already_serving(state: ServableState, version: int) -> str:
    if not _lacks_labels(state):
        return (
            f"version {version} of {state.name!r} is already stable; a canary needs another "
            f"version (published: {_join(state.published)})"
        )
    text = (
        f"version {version} of {state.name!r} already answers all requests: no label is set, so "
        f"the servers chose it. To keep it: `shortlist promote {version}`"
    )
    if set(state.published) == {version}:
        return text
    return (
        f"{text}. To try it on a share of the requests: {_way_back(state, version)}, then "
        f"`shortlist canary {version}`"
    )


def _no_canary(state: ServableState, stable: int) -> str:
    return f"{state.name!r}: no canary runs, version {stable} answers all requests"


def _begin_with(state: ServableState, stable: int) -> str:
    """Return what to run when there is no canary to promote."""
    if _lacks_labels(state):
        return f" without a label; to label it stable: `shortlist promote {stable}`"
    left = max(_left_over(state, stable), default=None)
    if left is not None:
        return (
            f"; version {left} has no label yet: `shortlist canary {left}` continues, "
            "`shortlist abort` unloads it"
        )
    return f"; begin with `shortlist canary VERSION` (published: {_join(state.published)})"


def _no_earlier_version(state: ServableState, stable: int) -> str:
    others = [version for version in state.published if version != stable]
    known = f"; in the repository: {_join(others)}; run" if others else " or published;"
    return f"{state.name!r}: no earlier version is known{known} {_way_back(state, stable)}"


def _way_back(state: ServableState, stable: int) -> str:
    """Return what to run, or to do first, to leave the stable version."""
    if state.label(PREVIOUS) not in (None, stable):
        return "`shortlist rollback`"
    if not set(state.published) - {stable}:
        return "publish one, then run `shortlist canary VERSION`"
    before = [version for version in state.published if version < stable]
    return f"`shortlist rollback --to {before[-1] if before else 'VERSION'}`"


def _join(versions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(versions)))
