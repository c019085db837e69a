"""Versions that load when they are asked for, instead of by configuration."""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.interfaces import Servable, ServableState
from shortlist.serving.embedded.lifecycle.handles import Handle, ServingMap
from shortlist.serving.embedded.lifecycle.loading import LoadServable
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.server_config import entry_of, read_config

__all__ = ["OnDemandSource"]


class OnDemandSource:
    """Versions of a repository, loaded when they are first asked for.

    A model's newest version is the one that was newest when the model was first asked for.
    Satisfies `interfaces.ServableSource`.

    Args:
        repository: The models.
        load: Loads and warms up one version of a model from a path.
        config: The servers' configuration file with the labels; may be missing.
    """

    def __init__(self, repository: ModelRepository, load: LoadServable, config: Path) -> None:
        self._repository = repository
        self._read = load
        self._config = config
        self._serving = ServingMap()
        self._lock = threading.Lock()
        self._loaded: Mapping[str, Mapping[int, Handle]] = {}
        self._failed: dict[tuple[str, int], StatusError] = {}
        self._newest: dict[str, int] = {}
        self._closed = False

    def models(self) -> Mapping[str, Mapping[str, int]]:
        """Return the models of the repository with their labels."""
        return {name: self._labels(name) for name in self._repository.models()}

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        """Return a servable, loaded until the context ends.

        Raises:
            StatusError: No such model, version or label exists, or the version does not load.
        """
        return self._serving.acquire(name, self.load(name, version, label))

    def statuses(self, name: str, *, version: int | None = None) -> list[ServableState]:
        """Return the versions of a model, highest first, or one; END if loading failed.

        Raises:
            StatusError: NOT_FOUND; the model or the version is unknown.
        """
        versions = self._published(name)
        if not versions:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        if version is not None and version not in versions:
            raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        shown = sorted(versions, reverse=True) if version is None else [version]
        return [self._state(name, number) for number in shown]

    def reload(self, config: Any, *, keep_waiting: Callable[[], bool] = lambda: True) -> None:
        """Refuse: there is no configuration."""
        raise StatusError(
            Code.UNIMPLEMENTED, "a LocalClient has no configuration; pass model, version or label"
        )

    def close(self) -> None:
        """Wait for the requests that run, and free all versions; idempotent."""
        with self._lock:
            self._closed = True
            loaded, self._loaded = self._loaded, {}
            self._serving.replace({})
        for versions in loaded.values():
            for handle in versions.values():
                handle.drain()
                handle.servable.close()

    def _published(self, name: str) -> list[int]:
        try:
            return self._repository.versions(name)
        except RepositoryError:  # no folder can have this name
            return []

    def _labels(self, name: str) -> Mapping[str, int]:
        entry = entry_of(read_config(self._config), name) if self._config.is_file() else None
        return {} if entry is None else entry.labels

    def _state(self, name: str, version: int) -> ServableState:
        failure = self._failed.get((name, version))
        if failure is None:
            return ServableState(version=version, state=State.AVAILABLE)
        return ServableState(
            version=version,
            state=State.END,
            error_code=failure.code,
            error_message=failure.message,
        )

    def load(self, name: str, version: int | None, label: str | None) -> int:
        """Return the version that is asked for, once it is loaded.

        Raises:
            StatusError: See `acquire`.
            ValueError: The source is closed.
        """
        if label is not None:
            version = self._labels(name).get(label)
            if version is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        elif version is None:
            version = self._newest.get(name)
        if version is None or version not in self._loaded.get(name, ()):
            with self._lock:
                return self._load_locked(name, version)
        return version

    def _load_locked(self, name: str, version: int | None) -> int:
        if self._closed:
            raise ValueError("the client is closed; create a new one")
        published = self._published(name)
        if version is None and published:
            version = self._newest.setdefault(name, published[-1])
        if version is None or version not in published:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {asked}")
        if version in self._loaded.get(name, ()):  # by another thread
            return version
        if failure := self._failed.get((name, version)):
            raise StatusError(failure.code, failure.message)
        try:
            path = str(self._repository.version_path(name, version))
            handle = Handle(self._read(name, version, path))
        except StatusError as exc:
            self._failed[name, version] = exc
            raise
        loaded = {**self._loaded, name: {**self._loaded.get(name, {}), version: handle}}
        self._serving.replace(loaded)
        self._loaded = loaded  # only now, as it is read without the lock
        return version
