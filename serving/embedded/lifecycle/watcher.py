"""Looks at the models' base paths, once or every so often, and says which versions are there."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.lifecycle.model_config import ModelSettings
from shortlist.serving.embedded.lifecycle.version_policy import SpecificVersions, choose_versions

__all__ = ["Aspire", "Watcher", "find_versions"]

log = logging.getLogger(__name__)

# A look at a file system that hangs must not keep the server from stopping.
_STOP_TIMEOUT = 2.0

# Told the versions to serve of one model: path by version. None of them means unload all.
Aspire = Callable[[str, Mapping[int, str]], None]


def local_path(base_path: str) -> str:
    """A base path as the file system wants it: `file:///models` is `/models`."""
    return base_path.removeprefix("file://")


def find_versions(model: ModelSettings) -> dict[int, str]:
    """Path by version, for the versions that the model's policy chooses.

    Raises:
        StatusError: The base path is not there, or cannot be listed.
    """
    base_path = local_path(model.base_path)
    if not os.path.exists(base_path):
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"Could not find base path {model.base_path} for servable {model.name} "
            f"with error NOT_FOUND: {model.base_path} not found",
        )
    try:
        names = os.listdir(base_path)
    except OSError as exc:
        raise StatusError(Code.UNKNOWN, f"{base_path}; {exc.strerror}") from exc
    chosen = choose_versions(names, model.policy)
    return {version: os.path.join(base_path, name) for version, name in chosen.items()}


class Watcher:
    """Polls the base paths in a thread of its own.

    As in the real server, one base path that cannot be read hides the news of all models
    until it is back: nothing is loaded and, above all, nothing is unloaded.

    Args:
        aspire: Told the versions of every model after each poll.
        interval: Seconds between two polls; 0 polls once, less polls never.
    """

    def __init__(self, aspire: Aspire, *, interval: float) -> None:
        self._aspire = aspire
        self._interval = interval
        self._lock = threading.Lock()  # held from looking to telling, so that updates come between
        self._models: Sequence[ModelSettings] = ()
        self._complaints: frozenset[str] = frozenset()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def names(self) -> frozenset[str]:
        """Names of the models that are watched."""
        with self._lock:
            return frozenset(model.name for model in self._models)

    def update(self, models: Sequence[ModelSettings]) -> None:
        """Watches these models from now on; those left out lose all their versions at once."""
        with self._lock:
            gone = {model.name for model in self._models} - {model.name for model in models}
            for name in sorted(gone):
                self._aspire(name, {})
            self._models = tuple(models)

    def start(self) -> None:
        """Starts polling, with the first poll right away."""
        if self._interval >= 0 and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends polling; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT)

    def poll(self) -> None:
        """Looks once and tells what there is."""
        with self._lock:
            complaints: set[str] = set()
            try:
                found = {model.name: find_versions(model) for model in self._models}
            except StatusError as exc:
                complaints.add(f"file system access error: {exc.message}")
                found = {}
            complaints |= {
                f"no versions of servable {model.name} found under base path {model.base_path}; "
                "a version is a folder whose name is a number, such as 1"
                for model in self._models
                if found and not found[model.name]
            }
            complaints |= self._absent(found)
            # The same every second would bury all else in the log.
            for complaint in sorted(complaints - self._complaints):
                log.warning("%s", complaint)
            self._complaints = frozenset(complaints)
            for name, versions in sorted(found.items()):
                self._aspire(name, versions)

    def _absent(self, found: Mapping[str, Mapping[int, str]]) -> set[str]:
        return {
            f"version {version} of servable {model.name} is asked for by the configuration "
            f"and is not under {model.base_path}"
            for model in self._models
            if model.name in found and isinstance(model.policy, SpecificVersions)
            for version in model.policy.versions - found[model.name].keys()
        }

    def _run(self) -> None:
        while True:
            try:
                self.poll()
            except Exception:
                log.exception("polling the base paths failed; the next poll tries again")
            if self._interval == 0 or self._stopping.wait(self._interval):
                return
