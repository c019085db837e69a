"""Answers of the embedded server to messages within the process."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from shortlist.clients.local import Refused
from shortlist.clients.wire import methods
from shortlist.serving.embedded.api import examples, inference
from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.backend import Backend
from shortlist.serving.embedded.flags import Flags
from shortlist.serving.embedded.lifecycle.on_demand import OnDemandSource
from shortlist.serving.embedded.settings import read_settings
from shortlist.serving.repository.local import ModelRepository

__all__ = ["InProcess"]


class InProcess:
    """Answers the messages of a client, with the embedded server's defaults; thread-safe.

    Args:
        repository: The models.
        config: The servers' configuration file with the labels; may be missing.
    """

    def __init__(self, repository: ModelRepository, config: Path) -> None:
        # The base path is that of no model.
        flags = Flags(model_base_path=str(repository.root.absolute()))
        self._backend = Backend(read_settings(flags))
        self._source = OnDemandSource(repository, self._backend.load, config)

    def __call__(self, method: methods.Method, request: Any, timeout: float | None) -> Any:
        """Return the response.

        Raises:
            Refused: The request failed.
        """
        call = self._backend.call(timeout)
        try:
            return self._answer(method, request, call)
        except StatusError as exc:
            raise Refused(exc.code.name, exc.message) from exc
        finally:
            call.memory.release()

    def prepare(self, name: str, version: int | None, labels: Sequence[str]) -> None:
        """Load what a call names; a failure is reported by its request."""
        for label in labels or (None,):
            with suppress(StatusError):
                self._source.load(name, version, label)

    def close(self) -> None:
        """Wait for the requests that run, and free all versions."""
        self._source.close()

    def _answer(self, method: methods.Method, request: Any, call: inference.Call) -> Any:
        if method.path == methods.HANDLE_RELOAD_CONFIG_REQUEST.path:
            return self._source.reload(request.config)
        spec = request.model_spec
        if method.path == methods.GET_MODEL_STATUS.path:
            version = spec.version.value if spec.HasField("version") else None
            return inference.status(self._source, spec.name, version)
        with inference.acquire(self._source, spec) as servable:
            if method.path == methods.PREDICT.path:
                # The caller may have a message of its own to read the answer with.
                return method.response.FromString(inference.predict(servable, request, call))
            if method.path == methods.CLASSIFY.path:
                return examples.classify(servable, request, call)
            if method.path == methods.REGRESS.path:
                return examples.regress(servable, request, call)
            return inference.metadata_response(servable)
