"""The server without its ports: configuration, watcher, manager and labels."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from shortlist.clients.wire.messages import ModelServerConfig
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.interfaces import Servable, ServableState
from shortlist.serving.embedded.lifecycle.loading import LoadRetries, LoadServable
from shortlist.serving.embedded.lifecycle.manager import Manager
from shortlist.serving.embedded.lifecycle.model_config import (
    ModelSettings,
    check_list,
    check_platforms,
    models_of,
)
from shortlist.serving.embedded.lifecycle.states import StateBoard, describe_unavailable
from shortlist.serving.embedded.lifecycle.watcher import Watcher

__all__ = ["CoreOptions", "ServerCore"]

log = logging.getLogger(__name__)

LabelMap = Mapping[str, Mapping[str, int]]  # model name -> label -> version


@dataclass(frozen=True, kw_only=True)
class CoreOptions:
    """Options for watching and loading models.

    Attributes:
        poll_interval: Seconds between two polls of the base paths; 0 polls once, less never.
        load_threads: Loads at a time, after the first configuration; 0 counts as 1.
        retries: Retries of a failed load.
        allow_labels_for_unavailable: Let a new label point at a version that is not loaded.
    """

    poll_interval: float = 1.0
    load_threads: int = 0
    retries: LoadRetries = field(default_factory=LoadRetries)
    allow_labels_for_unavailable: bool = False


class ServerCore:
    """Server of the models of a configuration, which can be replaced while it runs.

    Satisfies `interfaces.ServableSource`.

    Args:
        load: Loads and warms up one version of a model from a path.
        options: Options for watching and loading models.
        follow: Called with each configuration before its models load; may refuse it by raising
            `StatusError`.
    """

    def __init__(
        self,
        load: LoadServable,
        options: CoreOptions,
        *,
        follow: Callable[[ModelServerConfig], None] = lambda config: None,
    ) -> None:
        self._options = options
        self._follow = follow
        self._board = StateBoard()
        # The models of the first configuration load at the same time, as far as CPUs allow.
        self._manager = Manager(
            load,
            self._board,
            retries=options.retries,
            load_threads=4 * len(os.sched_getaffinity(0)),
        )
        self._watcher = Watcher(self._manager.aspire, interval=options.poll_interval)
        self._labels: LabelMap = {}
        self._config = ModelServerConfig()
        self._started = False
        self._reloading = threading.Lock()

    def models(self) -> LabelMap:
        """Return the configured models: version by label, by model name, sorted."""
        labels = self._labels
        return {name: labels.get(name, {}) for name in sorted(self._watcher.names)}

    def acquire(
        self, name: str, *, version: int | None = None, label: str | None = None
    ) -> AbstractContextManager[Servable]:
        """Return a loaded servable, which stays loaded until the context ends.

        Raises:
            StatusError: No such model, version or label is available; raised here or when the
                context is entered.
        """
        if label is not None:
            version = _version_of_label(self._labels, name, label)
        return self._manager.serving.acquire(name, version)

    def statuses(self, name: str, *, version: int | None = None) -> list[ServableState]:
        """Return the states of a model's versions, highest version first, or of one version.

        Raises:
            StatusError: NOT_FOUND; the model or the version is unknown.
        """
        return self._board.statuses(name, version)

    def reload(
        self, config: ModelServerConfig, *, keep_waiting: Callable[[], bool] = lambda: True
    ) -> None:
        """Replace the whole configuration and wait for new models.

        As in the real server, this is not a transaction: if a new model does not become
        available, all other changes have been made.

        Args:
            config: The new configuration.
            keep_waiting: Called repeatedly while waiting; False gives up.

        Raises:
            StatusError: The configuration was refused, a new model did not become
                available, or `keep_waiting` gave up (CANCELLED).
        """
        while not self._reloading.acquire(timeout=0.2):
            if not keep_waiting():
                raise StatusError(Code.CANCELLED, "The call ended while another reload ran")
        try:
            self._reload(config, keep_waiting)
        finally:
            self._reloading.release()

    def stop(self) -> None:
        """Stop watching and close the loaded versions that no request uses."""
        self._watcher.stop()
        self._manager.stop()

    def _reload(self, config: ModelServerConfig, keep_waiting: Callable[[], bool]) -> None:
        kind = config.WhichOneof("config")
        current = self._config.WhichOneof("config")
        if current is not None and kind != current and config != self._config:
            raise StatusError(
                Code.FAILED_PRECONDITION,
                "Cannot transition to requested config. It is only legal to transition "
                "from one ModelConfigList to another.",
            )
        if kind is None:
            log.info("the configuration is empty; nothing to do")
            return
        if kind == "custom_model_config":
            raise StatusError(
                Code.UNIMPLEMENTED, "ModelServer does not yet support custom model config."
            )
        check_list(config)
        check_platforms(self._config, config)
        self._follow(config)
        # As in the real server, labels are checked against the versions available before any
        # loads, and a configuration with refused labels still counts as the current one.
        self._config = ModelServerConfig()
        self._config.CopyFrom(config)
        self._labels = _assign_labels(
            {model.name: model.version_labels for model in config.model_config_list.config},
            self._labels,
            self._board.available,
            allow_unavailable=self._options.allow_labels_for_unavailable,
        )
        self._apply(models_of(config), keep_waiting)

    def _apply(self, models: Sequence[ModelSettings], keep_waiting: Callable[[], bool]) -> None:
        first = not self._started
        events = 0 if first else self._board.events
        new = {model.name for model in models} - self._watcher.names
        self._watcher.update(models)
        if first:
            self._started = True
            self._manager.start()
            self._watcher.start()
        settled = self._board.wait_settled(new, after=events, keep_waiting=keep_waiting)
        if first:
            self._manager.set_load_threads(self._options.load_threads)
        if settled is None:
            raise StatusError(Code.CANCELLED, "The call ended before all models were available")
        failure = describe_unavailable(settled, "servable" if first else "model")
        if failure is not None:
            raise StatusError(Code.UNKNOWN, failure)


def _assign_labels(
    requested: LabelMap,
    current: LabelMap,
    available: Callable[[str], frozenset[int]],
    *,
    allow_unavailable: bool,
) -> LabelMap:
    """Return the requested labels, if all are allowed.

    A label must point at an AVAILABLE version. With `allow_unavailable`
    (`--allow_version_labels_for_unavailable_models`), only a label that moves must.

    Raises:
        StatusError: FAILED_PRECONDITION; a label is refused.
    """
    assigned: dict[str, dict[str, int]] = {}
    for name, labels in requested.items():
        versions = available(name)
        for label, version in labels.items():
            unmoved = current.get(name, {}).get(label, version) == version
            if version not in versions and not (allow_unavailable and unmoved):
                raise StatusError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference",
                )
            assigned.setdefault(name, {})[label] = version
    return assigned


def _version_of_label(labels: LabelMap, name: str, label: str) -> int:
    version = labels.get(name, {}).get(label)
    if version is None:
        raise invalid(f"Unrecognized servable version label: {label}")
    return version
