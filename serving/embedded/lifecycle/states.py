"""What every version went through last, and waiting for models to become available."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import ServableState

__all__ = ["StateBoard", "describe_unavailable"]

# How often a wait without end asks whether anybody still wants its outcome.
_CHECK_INTERVAL = 0.2


@dataclass(frozen=True, kw_only=True)
class _Entry:
    status: ServableState
    event: int  # number of the event that set it


class StateBoard:
    """Last known state of every version that was ever managed; thread-safe.

    Versions stay listed after their END, as `GetModelStatus` shows them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: dict[str, dict[int, _Entry]] = {}
        self._events = 0

    @property
    def events(self) -> int:
        """Number of the last event; hand it to `wait_settled` to look at later ones only."""
        with self._changed:
            return self._events

    def publish(
        self, name: str, version: int, state: State, code: Code = Code.OK, message: str = ""
    ) -> None:
        """Sets the state of a version and wakes whoever waits for it."""
        status = ServableState(version=version, state=state, error_code=code, error_message=message)
        with self._changed:
            self._events += 1
            entry = _Entry(status=status, event=self._events)
            self._entries.setdefault(name, {})[version] = entry
            self._changed.notify_all()

    def statuses(self, name: str, version: int | None = None) -> list[ServableState]:
        """States of a model's versions, highest version first, or of one of them.

        Raises:
            StatusError: NOT_FOUND; nothing was ever known of the model or the version.
        """
        with self._changed:
            entries = dict(self._entries.get(name, {}))
        if version is not None:
            if version not in entries:
                raise StatusError(
                    Code.NOT_FOUND, f"Could not find version {version} of model {name}"
                )
            return [entries[version].status]
        if not entries:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [entries[number].status for number in sorted(entries, reverse=True)]

    def available(self, name: str) -> frozenset[int]:
        """Versions of a model that are AVAILABLE."""
        with self._changed:
            return frozenset(
                number
                for number, entry in self._entries.get(name, {}).items()
                if entry.status.state is State.AVAILABLE
            )

    def wait_settled(
        self,
        names: Collection[str],
        *,
        after: int = 0,
        wanted: Callable[[], bool] = lambda: True,
    ) -> dict[str, ServableState] | None:
        """Waits until some version of each model is AVAILABLE or at its END.

        Args:
            names: Models to wait for.
            after: Leave out states that were set by events up to this one.
            wanted: Asked now and then; False gives up.

        Returns:
            The state that settled each model (of several, that of the highest version),
            or None if `wanted` gave up.
        """
        with self._changed:
            while True:
                settled = {name: self._settled(name, after) for name in names}
                found = {name: status for name, status in settled.items() if status is not None}
                if len(found) == len(settled):
                    return found
                if not wanted():
                    return None
                self._changed.wait(_CHECK_INTERVAL)

    def _settled(self, name: str, after: int) -> ServableState | None:
        entries = self._entries.get(name, {})
        for number in sorted(entries, reverse=True):
            entry = entries[number]
            if entry.event > after and entry.status.state in (State.AVAILABLE, State.END):
                return entry.status
        return None


def describe_unavailable(settled: dict[str, ServableState], noun: str) -> str | None:
    """The real server's sentence about models that did not become available, or None.

    Args:
        settled: What `StateBoard.wait_settled` returned.
        noun: `servable` at the start, `model` on a reload.
    """
    parts = []
    for name, status in sorted(settled.items()):
        if status.state is State.AVAILABLE:
            continue
        reason = ""
        if status.error_code is not Code.OK:
            reason = f" due to error: {status.error_code.name}: {status.error_message}"
        parts.append(f"{{{{name: {name} version: {status.version}}}{reason}}}, ")
    if not parts:
        return None
    return f"{len(parts)} {noun}(s) did not become available: {{{''.join(parts)}}}"
