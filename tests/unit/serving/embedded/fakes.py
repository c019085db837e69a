"""A loader, servables and a spawner for tests of the manager."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import always_active


class FakeServable:
    def __init__(self, name: str, version: int, path: str) -> None:
        self.name = name
        self.version = version
        self.path = path
        self.signatures: Mapping[str, Any] = {}
        self.closed = False

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        output_names: Sequence[str],
        *,
        timeout: float | None = None,
        active: Callable[[], bool] = always_active,
    ) -> dict[str, npt.NDArray[Any]]:
        raise AssertionError("the manager runs nothing")

    def run_tensors(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        fetches: Sequence[str],
        *,
        timeout: float | None = None,
    ) -> list[npt.NDArray[Any]]:
        raise AssertionError("the manager runs nothing")

    def close(self) -> None:
        self.closed = True


class FakeLoader:
    """Loads at once, or fails for the (name, version) pairs in `broken`."""

    def __init__(self) -> None:
        self.broken: dict[tuple[str, int], StatusError] = {}
        self.loads: list[tuple[str, int]] = []
        self.servables: dict[tuple[str, int], FakeServable] = {}
        self._lock = threading.Lock()

    def break_version(self, name: str, version: int, code: Code, message: str) -> None:
        self.broken[name, version] = StatusError(code, message)

    def __call__(self, name: str, version: int, path: str) -> FakeServable:
        with self._lock:
            self.loads.append((name, version))
        if (name, version) in self.broken:
            raise self.broken[name, version]
        servable = FakeServable(name, version, path)
        self.servables[name, version] = servable
        return servable


class Later:
    """Background work that the test runs explicitly."""

    def __init__(self) -> None:
        self.work: list[tuple[str, Callable[[], None]]] = []

    def __call__(self, name: str, work: Callable[[], None]) -> None:
        self.work.append((name, work))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.work]

    def run_all(self) -> None:
        work, self.work = self.work, []
        for _, task in work:
            task()
