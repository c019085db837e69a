"""Loaded versions and the requests that use them."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import Servable

__all__ = ["Handle", "Lease", "ServingMap"]


class Handle:
    """A loaded servable, with the number of requests that use it."""

    __slots__ = ("_closing", "_idle", "_users", "servable")

    def __init__(self, servable: Servable) -> None:
        self.servable = servable
        self._idle = threading.Condition(threading.Lock())
        self._users = 0
        self._closing = False

    def try_enter(self) -> bool:
        """Count a request in; False if the servable is about to unload."""
        with self._idle:
            if self._closing:
                return False
            self._users += 1
            return True

    def leave(self) -> None:
        """Count a request out."""
        with self._idle:
            self._users -= 1
            if self._closing and not self._users:
                self._idle.notify_all()

    def drain(self, timeout: float | None = None) -> bool:
        """Refuse new requests and wait for the others.

        Args:
            timeout: Time limit in seconds; None waits indefinitely.

        Returns:
            True if no request uses the servable any more.
        """
        with self._idle:
            self._closing = True
            return self._idle.wait_for(lambda: not self._users, timeout)


@dataclass(frozen=True, kw_only=True)
class _Model:
    latest: Handle
    versions: Mapping[int, Handle] = field(default_factory=dict)


class ServingMap:
    """Servables available to requests; read without a lock, replaced as a whole."""

    def __init__(self) -> None:
        self._models: Mapping[str, _Model] = {}

    def replace(self, handles: Mapping[str, Mapping[int, Handle]]) -> None:
        """Replace all loaded versions, by model name and version number."""
        self._models = {
            name: _Model(latest=versions[max(versions)], versions=versions)
            for name, versions in handles.items()
            if versions
        }

    def acquire(self, name: str, version: int | None) -> "Lease":
        """Return a context with the servable of a version (the highest for None)."""
        return Lease(self, name, version)

    def enter(self, name: str, version: int | None) -> Handle:
        """Return the handle of a version (the highest for None), with this request counted in.

        Raises:
            StatusError: NOT_FOUND; the version is not loaded.
        """
        while True:
            model = self._models.get(name)
            if model is not None:
                handle = model.latest if version is None else model.versions.get(version)
                if handle is None:
                    break
                if handle.try_enter():
                    return handle
                # The version was replaced between the two lines; the map is new by now or soon.
                if self._models.get(name) is not model:
                    continue
            break
        request = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {request}")


class Lease:
    """Context in which a request can run a servable."""

    __slots__ = ("_handle", "_map", "_name", "_version")

    def __init__(self, serving_map: ServingMap, name: str, version: int | None) -> None:
        self._map = serving_map
        self._name = name
        self._version = version
        self._handle: Handle | None = None

    def __enter__(self) -> Servable:
        """Return the servable.

        Raises:
            StatusError: NOT_FOUND; the version is not loaded.
        """
        self._handle = self._map.enter(self._name, self._version)
        return self._handle.servable

    def __exit__(self, *exc_info: object) -> None:
        if self._handle is not None:
            self._handle.leave()
            self._handle = None
