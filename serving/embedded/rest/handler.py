"""The REST API: TensorFlow Serving's paths, status codes and JSON, on `HttpServer`.

Paths and their checks follow `model_servers/http_rest_api_{util,handler}.cc` and
`http_server.cc`.
"""

import re
import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from google.protobuf import json_format

from shortlist.clients.contract import SERVING_DEFAULT
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api import examples, inference
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.inference import Call, InferenceOptions
from shortlist.serving.embedded.api.interfaces import Servable, ServableSource
from shortlist.serving.embedded.api.metrics import CONTENT_TYPE, Metrics
from shortlist.serving.embedded.rest.http.connection import (
    HttpLimits,
    HttpRequest,
    HttpResponse,
    html_error,
)
from shortlist.serving.embedded.rest.http.server import HttpServer
from shortlist.serving.embedded.rest.json.examples import parse_examples
from shortlist.serving.embedded.rest.json.request import PredictBody
from shortlist.serving.embedded.rest.json.response import (
    classification_json,
    column_json,
    error_json,
    regression_json,
    row_json,
)

__all__ = ["RestHandler", "RestOptions", "start_rest"]

_API: Final = re.compile(rb"/v1/.*", re.IGNORECASE | re.DOTALL)
_PREDICTION: Final = re.compile(
    rb"/v1/models/([^/:]+)(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
    rb":(classify|regress|predict)",
    re.IGNORECASE,
)
_STATUS: Final = re.compile(
    rb"/v1/models(?:/([^/:]+))?(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
    rb"(?:/(metadata))?",
    re.IGNORECASE,
)
_URI: Final = re.compile(
    rb"(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://[^/?#]*)?"
    rb"(?P<path>(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*)"
    rb"(?P<rest>(?:\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*)?"
    rb"(?:\#(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*)?)"
)
_ORIGIN: Final = re.compile(rb"https?://")
_METHODS: Final = frozenset((b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))
_JSON: Final = ("Content-Type", "application/json")
_NO_TYPE: Final = ("Content-Type", "text/html; charset=ISO-8859-1")
_CORS: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
)
_HTTP_STATUS: Final = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_MAX_UNZIPPED: Final = 100 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RestOptions:
    """How the REST server behaves.

    Attributes:
        threads: `--rest_api_num_threads`: requests answered at once.
        timeout: Seconds that the runtime may take (`--rest_api_timeout_in_ms`), if limited.
        cors: `--rest_api_enable_cors_support`.
        metrics_path: Path of the page for Prometheus, None for no such page.
        limits: What clients are held to.
    """

    threads: int = 8
    timeout: float | None = 30.0
    cors: bool = False
    metrics_path: str | None = None
    limits: HttpLimits = field(default_factory=HttpLimits)
    inference: InferenceOptions = field(default_factory=InferenceOptions)


@dataclass(frozen=True, kw_only=True)
class _Route:
    """What a path asks for.

    Attributes:
        action: `predict`, `classify`, `regress`, `status` or `metadata`; empty if malformed.
        api: The action as counted by the metrics; empty for what is not counted.
        error: What is wrong with the path, answered without a body.
    """

    action: str = ""
    api: str = ""
    name: str = ""
    version: int | None = None
    label: str | None = None
    error: StatusError | None = None


def _decoded(text: bytes) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A request target, taken apart.

    Attributes:
        path: Without query and fragment.
        whole: With them.
        route: What it asks of the API; None if it is outside.
    """

    path: bytes
    whole: bytes
    route: _Route | None


@lru_cache(maxsize=1024)
def _parsed(method: bytes, target: bytes) -> _Target | None:
    """A target taken apart, or None if it is no URI."""
    uri = _URI.fullmatch(target)
    if uri is None:
        return None
    whole = uri["path"] + uri["rest"]
    route = _route(method, whole) if _API.fullmatch(whole) else None
    return _Target(path=uri["path"], whole=whole, route=route)


def _route(method: bytes, path: bytes) -> _Route:
    pattern = _PREDICTION if method == b"POST" else _STATUS
    match = pattern.fullmatch(path) if method in (b"GET", b"POST") else None
    if match is None:
        return _Route()
    name, version, label, last = match.groups()
    found = _Route(name=_decoded(name or b""), label=_decoded(label) if label else None)
    number = int(version) if version else None
    if number is not None and number >= 2**63:
        text = (version or b"").decode()
        return _Route(
            name=found.name, error=invalid(f"Failed to convert version: {text} to numeric.")
        )
    if method == b"POST":
        action = api = last.decode()
        if action not in ("predict", "classify", "regress"):
            action = ""
    else:
        action, api = ("metadata" if last == b"metadata" else "status"), ""
    return _Route(action=action, api=api, name=found.name, version=number, label=found.label)


class RestHandler:
    """Answers one HTTP request at a time, from any thread."""

    def __init__(self, source: ServableSource, options: RestOptions, metrics: Metrics) -> None:
        self._source = source
        self._options = options
        self._metrics = metrics
        self._metrics_path = options.metrics_path.encode() if options.metrics_path else None
        self._headers = (_JSON, *(_CORS if options.cors else ()))
        timeout = options.timeout if options.timeout and options.timeout > 0 else None
        self._call = Call(options=options.inference, metrics=metrics, timeout=timeout)
        self._actions: dict[str, Callable[[_Route, bytes], bytes]] = {
            "predict": self._predict,
            "classify": self._classify,
            "regress": self._regress,
            "status": self._status,
            "metadata": self._metadata,
        }

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """The answer to a request."""
        if request.method not in _METHODS:
            return html_error(501)
        target = _parsed(request.method, request.target)
        if target is None:
            return html_error(400)
        if self._metrics_path is not None and target.path == self._metrics_path:
            return self._metrics_page(target.whole)
        if target.route is None:
            return html_error(404)
        if request.method == b"OPTIONS":
            allowed = _ORIGIN.search(request.headers.get(b"origin", b"")) is not None
            headers = (_NO_TYPE, *(_CORS if self._options.cors else ()))
            return HttpResponse(status=200 if allowed else 400, headers=headers)
        return self._api(request, target.whole, target.route)

    def _metrics_page(self, path: bytes) -> HttpResponse:
        headers = (("Content-Type", CONTENT_TYPE),)
        if path == self._metrics_path:
            return HttpResponse(status=200, headers=headers, body=self._metrics.page())
        text = f"Unexpected path: {path.decode()}. Should be {self._options.metrics_path}"
        return HttpResponse(status=400, headers=headers, body=text.encode())

    def _api(self, request: HttpRequest, path: bytes, route: _Route) -> HttpResponse:
        started = time.perf_counter()
        if route.error is not None:
            self._metrics.request(route.name, route.error.code)
            return HttpResponse(status=400, headers=self._headers)
        code, status = Code.OK, 200
        try:
            action = self._actions.get(route.action)
            if action is None:
                raise invalid(
                    f"Malformed request: {request.method.decode()} "
                    f"{path.decode('utf-8', 'surrogateescape')}"
                )
            body = action(route, _unzipped(request))
        except StatusError as exc:
            code, status = exc.code, _HTTP_STATUS.get(exc.code, 500)
            body = error_json(exc.message)
        else:
            self._metrics.request_latency(
                route.name, route.api, "REST", time.perf_counter() - started
            )
        self._metrics.request(route.name, code)
        return HttpResponse(status=status, headers=self._headers, body=body)

    def _acquire(self, route: _Route) -> AbstractContextManager[Servable]:
        return self._source.acquire(route.name, version=route.version, label=route.label)

    def _predict(self, route: _Route, body: bytes) -> bytes:
        parsed = PredictBody(body)
        signature_name = parsed.signature_name or SERVING_DEFAULT
        with self._acquire(route) as servable:
            definition = servable.signatures.get(signature_name)
            if definition is None:
                raise invalid(
                    f'Serving signature name: "{signature_name}" not found in signature def'
                )
            arrays = parsed.tensors(definition)
            outputs = inference.predict_arrays(servable, signature_name, arrays, self._call)
        return row_json(outputs) if parsed.rows else column_json(outputs)

    def _classify(self, route: _Route, body: bytes) -> bytes:
        signature_name, given = parse_examples(body)
        with self._acquire(route) as servable:
            spec = examples.signature_spec(signature_name)
            request = messages.ClassificationRequest(input=given, model_spec=spec)
            answer = examples.classify(servable, request, self._call)
        return classification_json(answer.result)

    def _regress(self, route: _Route, body: bytes) -> bytes:
        signature_name, given = parse_examples(body)
        with self._acquire(route) as servable:
            spec = examples.signature_spec(signature_name)
            request = messages.RegressionRequest(input=given, model_spec=spec)
            answer = examples.regress(servable, request, self._call)
        return regression_json(answer.result)

    def _status(self, route: _Route, body: bytes) -> bytes:
        if not route.name:
            raise invalid("Missing model name in request.")
        return _proto_json(inference.status(self._source, route.name, route.version)) + b"\n"

    def _metadata(self, route: _Route, body: bytes) -> bytes:
        if not route.name:
            raise invalid("Missing model name in request.")
        with self._acquire(route) as servable:
            answer = inference.metadata(servable)
        signatures = messages.SignatureDefMap.FromString(answer.metadata["signature_def"].value)
        return b"".join(
            (
                b'{\n"model_spec":',
                _proto_json(answer.model_spec),
                b'\n,\n"metadata": {"signature_def": ',
                _proto_json(signatures),
                b"\n}\n}\n",
            )
        )


def _proto_json(message: Any) -> bytes:
    text: str = json_format.MessageToJson(
        message,
        always_print_fields_with_no_presence=True,
        preserving_proto_field_name=True,
        indent=1,
        ensure_ascii=False,
    )
    return text.encode("utf-8", "surrogateescape")


def _unzipped(request: HttpRequest) -> bytes:
    if b"gzip" not in request.headers.get(b"content-encoding", b""):
        return request.body
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        body = unzip.decompress(request.body, _MAX_UNZIPPED)
    except zlib.error:
        return b""
    return body if unzip.eof else b""


def start_rest(
    source: ServableSource,
    *,
    host: str,
    port: int,
    options: RestOptions | None = None,
    metrics: Metrics | None = None,
) -> HttpServer:
    """Serves the REST API until the returned server is stopped.

    Args:
        source: Where servables come from.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        options: Limits and features.
        metrics: Where requests are counted.

    Raises:
        OSError: The address cannot be listened on.
    """
    options = options or RestOptions()
    handler = RestHandler(source, options, metrics or Metrics())
    return HttpServer(handler, host=host, port=port, threads=options.threads, limits=options.limits)
