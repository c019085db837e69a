"""Polls the models' base paths for versions."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.lifecycle.model_config import ModelSettings
from shortlist.serving.embedded.lifecycle.version_policy import SpecificVersions, choose_versions

__all__ = ["Aspire", "Watcher", "find_versions"]

log = logging.getLogger(__name__)

# A file system that hangs must not keep the server from stopping.
_STOP_TIMEOUT = 2.0

# Receives the versions to serve of one model: path by version. An empty mapping unloads all.
Aspire = Callable[[str, Mapping[int, str]], None]


def find_versions(model: ModelSettings) -> dict[int, str]:
    """Return path by version for the versions that the model's policy chooses.

    Raises:
        StatusError: The base path does not exist or cannot be listed.
    """
    base_path = model.base_path.removeprefix("file://")
    if not os.path.exists(base_path):
        raise invalid(
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
    """Thread that polls the base paths.

    As in the real server, one base path that cannot be read stops the updates of all models
    until it can: nothing is loaded and, above all, nothing is unloaded.

    Args:
        aspire: Receives the versions of every model after each poll.
        interval: Seconds between two polls; 0 polls once, less never.
    """

    def __init__(self, aspire: Aspire, *, interval: float) -> None:
        self._aspire = aspire
        self._interval = interval
        self._lock = threading.Lock()  # held during each poll, so that updates come between polls
        self._models: Sequence[ModelSettings] = ()
        self._complaints: frozenset[str] = frozenset()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def names(self) -> frozenset[str]:
        """Names of the watched models."""
        with self._lock:
            return frozenset(model.name for model in self._models)

    def update(self, models: Sequence[ModelSettings]) -> None:
        """Replace the watched models; those left out lose all their versions at once."""
        with self._lock:
            gone = {model.name for model in self._models} - {model.name for model in models}
            for name in sorted(gone):
                self._aspire(name, {})
            self._models = tuple(models)

    def start(self) -> None:
        """Start polling, with the first poll at once."""
        if self._interval >= 0 and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop polling; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT)

    def poll(self) -> None:
        """Poll once."""
        with self._lock:
            complaints: set[str] = set()
            try:
                versions = {model.name: find_versions(model) for model in self._models}
            except StatusError as exc:
                complaints.add(f"file system access error: {exc.message}")
                versions = {}
            complaints |= {
                f"no versions of servable {model.name} found under base path {model.base_path}; "
                "a version is a folder whose name is a number, such as 1"
                for model in self._models
                if versions and not versions[model.name]
            }
            complaints |= self._absent(versions)
            # Repeated every second, they would hide everything else in the log.
            for complaint in sorted(complaints - self._complaints):
                log.warning("%s", complaint)
            self._complaints = frozenset(complaints)
            for name, paths in sorted(versions.items()):
                self._aspire(name, paths)

    def _absent(self, versions: Mapping[str, Mapping[int, str]]) -> set[str]:
        return {
            f"the configuration asks for version {version} of servable {model.name}, "
            f"which is not under {model.base_path}"
            for model in self._models
            if model.name in versions and isinstance(model.policy, SpecificVersions)
            for version in model.policy.versions - versions[model.name].keys()
        }

    def _run(self) -> None:
        while True:
            try:
                self.poll()
            except Exception:
                log.exception("polling the base paths failed; the next poll tries again")
            if self._interval == 0 or self._stopping.wait(self._interval):
                return
