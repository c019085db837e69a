"""What the verbs mean: from a verb and the present state to goals. Pure."""

from collections.abc import Mapping

from shortlist.serving.errors import RolloutError
from shortlist.serving.repository.server_config import STABLE
from shortlist.serving.rollout.plan import Goal
from shortlist.serving.rollout.state import CANARY, PREVIOUS, ServableState

__all__ = ["ACTIONS", "abort", "canary", "finish", "goals_for", "promote", "rollback"]

ACTIONS = ("canary", "promote", "rollback", "abort", "finish")


def goals_for(action: str, state: ServableState, version: int | None = None) -> list[Goal]:
    """Goals of one verb, to be reached one after the other.

    Args:
        action: One of `ACTIONS`.
        state: As observed.
        version: The version to canary, to promote, or to roll back to.

    Raises:
        RolloutError: The verb makes no sense in this state.
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
    """First lets the previous version go, so that no more than two are ever in memory."""
    stable = _stable(state)
    running = state.label(CANARY)
    if version == stable:
        raise RolloutError(
            f"version {version} of {state.name!r} is stable already; a canary needs another"
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
            why=f"version {version} answers the canary's part, version {stable} the rest",
        )
    ]
    begun = running == version or version in state.present()
    if state.label(STABLE) is None or (state.present() - {stable, version} and not begun):
        # A first canary labels what is served before another version is there to be
        # taken for it: a call without a label meets the newest version.
        goals.insert(0, _alone(state, stable))
    return goals


def promote(state: ServableState, version: int | None = None) -> list[Goal]:
    """Makes the canary stable; the version before stays loaded, one label move away.

    With a version and nothing stable yet, makes that version stable at once: there is
    nobody yet to protect.
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
                why=f"version {stable} answers everybody already",
            )
        ]
    return [
        Goal(
            versions=frozenset({candidate, stable}),
            labels=_labels(stable=candidate, canary=candidate, previous=stable),
            why=f"version {candidate} answers everybody, version {stable} stays at hand",
        )
    ]


def rollback(state: ServableState, version: int | None = None) -> list[Goal]:
    """Goes back: to a named version, from a running canary, or to the version before stable."""
    if version is not None:
        return [_alone(state, version)]
    stable = _stable(state)
    running, previous = state.label(CANARY), state.label(PREVIOUS)
    # While a canary runs, or its promotion is not complete everywhere, `stable` is good still.
    undecided = running not in (None, stable)
    return [_alone(state, stable if undecided or previous is None else previous)]


def abort(state: ServableState) -> list[Goal]:
    """Ends a canary: its version goes, stable and the version before it stay."""
    stable = _stable(state)
    previous = state.label(PREVIOUS)
    previous = stable if previous is None else previous
    return [
        Goal(
            versions=frozenset({stable, previous}),
            labels=_labels(stable=stable, canary=stable, previous=previous),
            why=f"the canary has ended, version {stable} answers everybody",
        )
    ]


def finish(state: ServableState) -> list[Goal]:
    """Lets the version before stable go; a running canary stays."""
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
        why=f"version {version} of {state.name} answers everybody and is alone in memory",
        # It serves already, or did: to ask it first would only delay the way back.
        trusted=frozenset({version}) & state.present(),
    )


def _stable(state: ServableState) -> int:
    """Version that users get: the label, or without one what a call without a label meets."""
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
            f"no version of {state.name!r} is AVAILABLE on every server; put one there with "
            "`shortlist promote VERSION`"
        )
    return max(common)


def _labels(*, stable: int, canary: int, previous: int) -> Mapping[str, int]:
    return {STABLE: stable, CANARY: canary, PREVIOUS: previous}


def _canary_in_words(candidate: int | None, stable: int) -> str:
    return f"version {candidate} is" if candidate not in (None, stable) else "there is none"


def _join(versions: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(versions)))
