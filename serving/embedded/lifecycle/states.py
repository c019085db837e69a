"""The last state of every version, and waiting for models to become available."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import ServableState

__all__ = ["StateBoard", "describe_unavailable"]

_CHECK_INTERVAL = 0.2  # seconds between two calls of `keep_waiting`


@dataclass(frozen=True, kw_only=True)
class _Entry:
    status: ServableState
    event: int  # number of the event that set the state


class StateBoard:
    """Last state of every version that was ever managed; thread-safe.

    Versions stay listed after END, as in `GetModelStatus`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: dict[str, dict[int, _Entry]] = {}
        self._events = 0

    @property
    def events(self) -> int:
        """Number of the last event; `wait_settled` can wait for later ones."""
        with self._changed:
            return self._events

    def publish(
        self, name: str, version: int, state: State, code: Code = Code.OK, message: str = ""
    ) -> None:
        """Set the state of a version and wake all waiting threads."""
        status = ServableState(version=version, state=state, error_code=code, error_message=message)
        with self._changed:
            self._events += 1
            entry = _Entry(status=status, event=self._events)
            self._entries.setdefault(name, {})[version] = entry
            self._changed.notify_all()

    def statuses(self, name: str, version: int | None = None) -> list[ServableState]:
        """Return the states of a model's versions, highest version first, or of one version.

        Raises:
            StatusError: NOT_FOUND; the model or the version is unknown.
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
        """Return the AVAILABLE versions of a model."""
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
        keep_waiting: Callable[[], bool] = lambda: True,
    ) -> dict[str, ServableState] | None:
        """Wait until some version of each model is AVAILABLE or at END.

        Args:
            names: Models to wait for.
            after: Number of the last event to ignore.
            keep_waiting: Called repeatedly while waiting; False gives up.

        Returns:
            The state that settled each model (of the highest version, if there are several);
            None if `keep_waiting` gave up.
        """
        with self._changed:
            while True:
                settled = {name: self._settled(name, after) for name in names}
                complete = {name: state for name, state in settled.items() if state is not None}
                if len(complete) == len(settled):
                    return complete
                if not keep_waiting():
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
    """Return the real server's message about models that did not become available, if any.

    Args:
        settled: Result of `StateBoard.wait_settled`.
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
