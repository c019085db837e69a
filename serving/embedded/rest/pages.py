"""Paths that TensorFlow Serving does not have: health, readiness and the API's description."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from shortlist.clients.types import State
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.api.interfaces import Servable, ServableSource
from shortlist.serving.embedded.rest.http.connection import HttpResponse
from shortlist.serving.embedded.rest.openapi.document import ServedModel, document

__all__ = ["Pages", "Samples", "no_samples"]

# Requests that a servable has answered, by signature name.
Samples = Callable[[Servable], Mapping[str, messages.PredictRequest]]

_FOLDER: Final = Path(__file__).with_name("openapi")
_FILES: Final = {
    b"/docs": ("docs.html", "text/html; charset=utf-8"),
    b"/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    b"/docs/icon.svg": ("icon.svg", "image/svg+xml"),
    b"/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
_SAFE: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)
_OWN: Final = "; ".join(f"{kind}-src 'self'" for kind in ("connect", "img", "script", "style"))
_NO_OTHERS: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ONLY_OWN: Final = ("Content-Security-Policy", f"{_NO_OTHERS}; {_OWN}")


def no_samples(servable: Servable) -> Mapping[str, messages.PredictRequest]:
    """Return no requests."""
    return {}


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A configured model, as far as it decides about the document."""

    name: str
    versions: tuple[int, ...]
    labels: tuple[str, ...]


class Pages:
    """Answers GET and HEAD for the paths of this server's own; thread-safe.

    Args:
        source: Source of servables.
        docs: Describe the API at `/docs` and `/openapi.json`.
        samples: Requests that a servable has answered, for the examples.
        metrics_path: Path of the page for Prometheus, if there is one.
    """

    def __init__(
        self,
        source: ServableSource,
        *,
        docs: bool = True,
        samples: Samples = no_samples,
        metrics_path: str | None = None,
    ) -> None:
        self._source = source
        self._samples = samples
        self._metrics_path = metrics_path
        self._answers: dict[bytes, Callable[[], HttpResponse]] = {
            b"/healthz": lambda: _json(200, {"status": "alive"}),
            b"/readyz": self._ready,
        }
        if docs:
            self._answers[b"/openapi.json"] = self._openapi
            for path in _FILES:
                self._answers[path] = lambda path=path: _file(path)  # type: ignore[misc]
        self._lock = threading.Lock()
        self._described: tuple[list[_Model], bytes] | None = None

    def __call__(self, method: bytes, path: bytes) -> HttpResponse | None:
        """Return the page at a path, or None if there is none."""
        answer = self._answers.get(path) if method in (b"GET", b"HEAD") else None
        return None if answer is None else answer()

    def _ready(self) -> HttpResponse:
        unavailable = [model.name for model in self._models() if not model.versions]
        body = {"ready": not unavailable, "unavailable": unavailable}
        return _json(503 if unavailable else 200, body)

    def _models(self) -> list[_Model]:
        return [
            _Model(name=name, versions=self._available(name), labels=tuple(sorted(labels)))
            for name, labels in self._source.models().items()
        ]

    def _available(self, name: str) -> tuple[int, ...]:
        """Return the AVAILABLE versions, highest first."""
        try:
            states = self._source.statuses(name)
        except StatusError:  # no version has been found yet
            return ()
        return tuple(entry.version for entry in states if entry.state is State.AVAILABLE)

    def _openapi(self) -> HttpResponse:
        models = self._models()
        # Making it takes milliseconds, and only versions and labels change it.
        with self._lock:
            if self._described is None or self._described[0] != models:
                described = document(
                    [self._served(model) for model in models],
                    version=version("shortlist"),
                    metrics_path=self._metrics_path,
                )
                self._described = models, _dumped(described)
            body = self._described[1]
        return HttpResponse(status=200, headers=_headers("application/json"), body=body)

    def _served(self, model: _Model) -> ServedModel:
        for number in model.versions[:1]:
            try:
                with self._source.acquire(model.name, version=number) as servable:
                    return ServedModel(
                        name=model.name,
                        versions=model.versions,
                        labels=model.labels,
                        signatures=servable.signatures,
                        samples=self._samples(servable),
                    )
            except StatusError:  # it was unloaded meanwhile
                break
        return ServedModel(name=model.name, versions=model.versions, labels=model.labels)


@cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()


def _file(path: bytes) -> HttpResponse:
    name, kind = _FILES[path]
    headers = (*_headers(kind), _ONLY_OWN)
    return HttpResponse(status=200, headers=headers, body=_content(name))


def _headers(kind: str) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", kind), *_SAFE)


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _json(status: int, value: Any) -> HttpResponse:
    return HttpResponse(status=status, headers=_headers("application/json"), body=_dumped(value))
