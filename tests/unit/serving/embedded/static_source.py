"""A `ServableSource` with fixed servables."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shortlist.clients.types import State
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import Servable, ServableState


class StaticSource:
    """Serves fixed versions and labels, with the real server's messages."""

    def __init__(
        self,
        servables: Mapping[str, Mapping[int, Servable]],
        labels: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self.servables = servables
        self.labels = labels or {}
        self.reloads: list[Any] = []

    def models(self) -> Mapping[str, Mapping[str, int]]:
        return {name: self.labels.get(name, {}) for name in sorted(self.servables)}

    @contextmanager
    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> Iterator[Servable]:
        versions = self.servables.get(name, {})
        if label is not None:
            version = self.labels.get(name, {}).get(label)
            if version is None:
                raise StatusError(
                    Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
                )
        if version is None:
            if not versions:
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            yield versions[max(versions)]
            return
        if version not in versions:
            raise StatusError(
                Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {version})"
            )
        yield versions[version]

    def statuses(self, name: str, *, version: int | None = None) -> list[ServableState]:
        versions = sorted(self.servables.get(name, {}), reverse=True)
        if version is not None and version not in versions:
            raise StatusError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        if not versions:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [
            ServableState(version=number, state=State.AVAILABLE)
            for number in versions
            if version in (None, number)
        ]

    def reload(self, config: Any, *, keep_waiting: Callable[[], bool] = lambda: True) -> None:
        self.reloads.append(config)
