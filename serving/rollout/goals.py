"""Goals of the verbs, given the current state. Pure."""

from collections.abc import Mapping

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.server_config import STABLE
from shortlist.serving.rollout.plan import Goal
from shortlist.serving.rollout.state import CANARY, PREVIOUS, ServableState

__all__ = ["ACTIONS", "abort", "canary", "finish", "goals_for", "promote", "rollback"]

ACTIONS = ("canary", "promote", "rollback", "abort", "finish")


def goals_for(action: str, state: ServableState, version: int | None = None) -> list[Goal]:
    """Return the goals of one verb, to reach one after the other.

    Args:
        action: One of `ACTIONS`.
        state: Observed state.
        version: Version to canary, to promote, or to roll back to.

    Raises:
        RolloutError: The verb does not fit this state.
    """
    match action:
        case "canary":
            if version is None:
                raise RolloutError("a canary needs a version: `shortlist canary VERSION`")
            return canary(state, version)
        case "promote":
            return promote(state, version)
        case "rollback":
            return rollback(state, version)
        case "abort":
            return abort(state)
        case "finish":
            return finish(state)
        case _:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}, got {action!r}")


def canary(state: ServableState, version: int) -> list[Goal]:
    """Unload the previous version first, so that at most two are ever in memory."""
    stable = _stable(state)
    running = state.label(CANARY)
    if version == stable:
        raise RolloutError(
            f"version {version} of {state.name!r} is already stable; a canary needs another version"
        )
    if running not in (None, stable, version):
        raise RolloutError(
            f"version {running} of {state.name!r} is the canary; "
            "`shortlist promote` or `shortlist abort` it first"
        )
    goals = [
        Goal(
            versions=frozenset({stable, version}),
            labels=_labels(stable=stable, canary=version, previous=stable),
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
        if others:
            raise RolloutError(
                f"{state.name!r} has no stable version yet but serves {_join(others)}; begin "
                f"with `shortlist canary {version}`, which makes what is served stable"
            )
        return [_alone(state, version)]
    stable = _stable(state)
    candidate = state.label(CANARY)
    if version is not None and version not in (candidate, stable):
        raise RolloutError(
            f"version {version} of {state.name!r} is not the canary "
            f"({_canary_in_words(candidate, stable)}); begin with `shortlist canary {version}`"
        )
    if candidate is None or candidate == stable:
        previous = state.label(PREVIOUS)
        previous = stable if previous is None else previous
        return [
            Goal(
                versions=frozenset({stable, previous}),
                labels=_labels(stable=stable, canary=stable, previous=previous),
                why=f"version {stable} already answers all requests",
            )
        ]
    return [
        Goal(
            versions=frozenset({candidate, stable}),
            labels=_labels(stable=candidate, canary=candidate, previous=stable),
            why=f"version {candidate} answers all requests, version {stable} stays loaded",
        )
    ]


def rollback(state: ServableState, version: int | None = None) -> list[Goal]:
    """Return to a named version, from a running canary, or to the version before stable."""
    if version is not None:
        return [_alone(state, version)]
    stable = _stable(state)
    running, previous = state.label(CANARY), state.label(PREVIOUS)
    # While a canary runs, or its promotion is incomplete, `stable` is still good.
    undecided = running not in (None, stable)
    return [_alone(state, stable if undecided or previous is None else previous)]


def abort(state: ServableState) -> list[Goal]:
    """End a canary: unload its version, keep stable and the version before it."""
    stable = _stable(state)
    previous = state.label(PREVIOUS)
    previous = stable if previous is None else previous
    return [
        Goal(
            versions=frozenset({stable, previous}),
            labels=_labels(stable=stable, canary=stable, previous=previous),
            why=f"the canary has ended, version {stable} answers all requests",
        )
    ]


def finish(state: ServableState) -> list[Goal]:
    """Unload the version before stable; a running canary stays."""
    stable = _stable(state)
    running = state.label(CANARY)
    running = stable if running is None else running
    return [
        Goal(
            versions=frozenset({stable, running}),
            labels=_labels(stable=stable, canary=running, previous=stable),
            why=f"version {stable} is served without the one before it",
        )
    ]


def _alone(state: ServableState, version: int) -> Goal:
    return Goal(
        versions=frozenset({version}),
        labels=_labels(stable=version, canary=version, previous=version),
        why=f"version {version} of {state.name} answers all requests and is alone in memory",
        # It serves already, or did: a check would only delay the rollback.
        trusted=frozenset({version}) & state.present(),
    )


def _stable(state: ServableState) -> int:
    """Return the version that users get: by label, else what a call without a label gets."""
    stable = state.label(STABLE)
    if stable is not None:
        return stable
    recorded = state.recorded.labels.get(STABLE) if state.recorded else None
    if recorded is not None:
        return recorded
    everywhere = [server.available for server in state.servers]
    common = frozenset.intersection(*everywhere) if everywhere else frozenset()
    if not common:
        raise RolloutError(
            f"no version of {state.name!r} is AVAILABLE on every server; start with "
            "`shortlist promote VERSION`"
        )
    return max(common)


def _labels(*, stable: int, canary: int, previous: int) -> Mapping[str, int]:
    return {STABLE: stable, CANARY: canary, PREVIOUS: previous}


def _canary_in_words(candidate: int | None, stable: int) -> str:
    return f"version {candidate} is" if candidate not in (None, stable) else "no canary runs"


def _join(versions: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(versions)))
