"""The REST API: TensorFlow Serving's paths, status codes and JSON.

Paths and their checks follow `model_servers/http_rest_api_{util,handler}.cc` and
`http_server.cc`.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from google.protobuf import json_format

from shortlist.clients.contract import SERVING_DEFAULT
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api import examples, inference
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.inference import Call, InferenceOptions
from shortlist.serving.embedded.api.interfaces import Servable, ServableSource
from shortlist.serving.embedded.api.limits import MIB, RequestLimits, RequestMemory
from shortlist.serving.embedded.api.metrics import CONTENT_TYPE, Metrics
from shortlist.serving.embedded.api.request_log import RequestLogs
from shortlist.serving.embedded.rest.http.connection import (
    HttpLimits,
    HttpRequest,
    HttpResponse,
    html_error,
)
from shortlist.serving.embedded.rest.http.server import HttpServer
from shortlist.serving.embedded.rest.json.examples import parse_examples
from shortlist.serving.embedded.rest.json.request import PredictBody, admit_values
from shortlist.serving.embedded.rest.json.response import (
    classification_json,
    column_json,
    error_json,
    regression_json,
    row_json,
)
from shortlist.serving.embedded.rest.pages import Pages, Samples, no_samples

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
# Possessive, since no repetition can end earlier: backtracking would take minutes for a target
# of 60 kB that fails in its last byte.
_URI: Final = re.compile(
    rb"(?:[A-Za-z][A-Za-z0-9+.-]*+:)?+(?://[^/?#]*+)?+"
    rb"(?P<path>(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*+)"
    rb"(?P<rest>(?:\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*+)?+"
    rb"(?:\#(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*+)?+)"
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
_MAX_DIGITS: Final = 1000  # Python converts no more than 4300
_CACHED_BYTES: Final = 512
_UNZIP_STEP: Final = 256 * 1024
_FREE_UNZIPPED: Final = MIB
_MAX_RATIO: Final = 100


@dataclass(frozen=True, kw_only=True)
class RestOptions:
    """Options of the REST server.

    Attributes:
        threads: Requests answered at the same time (`--rest_api_num_threads`).
        timeout: Time limit of the runtime in seconds, if there is one
            (`--rest_api_timeout_in_ms`).
        cors: `--rest_api_enable_cors_support`.
        metrics_path: Path of the page for Prometheus; None for no such page.
        docs: `--enable_docs`.
        samples: Requests that a servable has answered, for the API's description.
        limits: Limits for clients.
        inference: Flags that change answers, and limits.
    """

    threads: int = 8
    timeout: float | None = 30.0
    cors: bool = False
    metrics_path: str | None = None
    docs: bool = True
    samples: Samples = no_samples
    limits: HttpLimits = field(default_factory=HttpLimits)
    inference: InferenceOptions = field(default_factory=InferenceOptions)


@dataclass(frozen=True, kw_only=True)
class _Route:
    """The meaning of a path.

    Attributes:
        action: `predict`, `classify`, `regress`, `status` or `metadata`; empty if malformed.
        api: Name of the action in the metrics; empty for status and metadata.
        name: Model name.
        version: Version number.
        label: Version label.
        error: Error in the path, answered without a body.
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
    """The parts of a request target.

    Attributes:
        path: Without query and fragment.
        whole: Path with query and fragment.
        route: Meaning of the path; None if it is outside the API.
    """

    path: bytes
    whole: bytes
    route: _Route | None


def _parse(method: bytes, target: bytes) -> _Target | None:
    """Return the parts of a target; None if it is not a URI."""
    uri = _URI.fullmatch(target)
    if uri is None:
        return None
    # A proxy reads `//a/b` as the path `/a/b`, the URI's grammar as `/b` on the host `a`: the
    # second could reach what the proxy hides.
    path = b"" if target.startswith(b"//") else uri["path"]
    whole = path + uri["rest"]
    route = _route(method, whole) if _API.fullmatch(whole) else None
    return _Target(path=path, whole=whole, route=route)


_parse_cached: Final = lru_cache(maxsize=1024)(_parse)


def _route(method: bytes, path: bytes) -> _Route:
    pattern = _PREDICTION if method == b"POST" else _STATUS
    match = pattern.fullmatch(path) if method in (b"GET", b"POST") else None
    if match is None:
        return _Route()
    name, version, label, last = match.groups()
    model = _decoded(name or b"")
    number = int(version) if version and len(version) <= _MAX_DIGITS else None
    if version and (number is None or number >= 2**63):
        text = f"Failed to convert version: {version.decode()} to numeric."
        return _Route(name=model, error=invalid(text))
    if method == b"POST":
        action = api = last.decode()
        if action not in ("predict", "classify", "regress"):
            action = ""
    else:
        action, api = ("metadata" if last == b"metadata" else "status"), ""
    return _Route(
        action=action,
        api=api,
        name=model,
        version=number,
        label=_decoded(label) if label else None,
    )


class RestHandler:
    """Handler of HTTP requests; thread-safe."""

    def __init__(
        self, source: ServableSource, options: RestOptions, metrics: Metrics, logs: RequestLogs
    ) -> None:
        self._source = source
        self._options = options
        self._metrics = metrics
        self._logs = logs
        self._metrics_path = options.metrics_path.encode() if options.metrics_path else None
        self._pages = Pages(
            source,
            docs=options.docs,
            samples=options.samples,
            metrics_path=options.metrics_path,
        )
        self._headers = (_JSON, *(_CORS if options.cors else ()))
        timeout = options.timeout if options.timeout and options.timeout > 0 else None
        self._timeout = timeout
        self._actions: dict[str, Callable[[_Route, bytes, Call], bytes]] = {
            "predict": self._predict,
            "classify": partial(
                self._on_examples,
                "classify",
                messages.ClassificationRequest,
                examples.classify,
                classification_json,
            ),
            "regress": partial(
                self._on_examples,
                "regress",
                messages.RegressionRequest,
                examples.regress,
                regression_json,
            ),
            "status": self._status,
            "metadata": self._metadata,
        }

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request."""
        if request.method not in _METHODS:
            return html_error(501)
        # The cache must not keep a thousand targets of 64 kB.
        parse = _parse_cached if len(request.target) <= _CACHED_BYTES else _parse
        target = parse(request.method, request.target)
        if target is None:
            return html_error(400)
        if self._metrics_path is not None and target.path == self._metrics_path:
            return self._metrics_page(target.whole)
        if target.route is None:
            return self._pages(request.method, target.path) or html_error(404)
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
        if route.error is not None:
            self._metrics.request(route.name, route.error.code)
            return HttpResponse(status=400, headers=self._headers)
        status = 200
        memory = RequestMemory(self._options.inference.room)
        try:
            with self._metrics.answering(route.name, route.api, "REST"):
                action = self._actions.get(route.action)
                if action is None:
                    raise invalid(
                        f"Malformed request: {request.method.decode()} "
                        f"{path.decode('utf-8', 'surrogateescape')}"
                    )
                call = Call(
                    options=self._options.inference,
                    metrics=self._metrics,
                    memory=memory,
                    timeout=self._timeout,
                    active=request.active,
                )
                body = action(route, self._body(request, memory), call)
        except StatusError as exc:
            status = _HTTP_STATUS.get(exc.code, 500)
            body = error_json(exc.message)
        finally:
            memory.release()
        return HttpResponse(status=status, headers=self._headers, body=body)

    def _acquire(self, route: _Route) -> AbstractContextManager[Servable]:
        return self._source.acquire(route.name, version=route.version, label=route.label)

    def _body(self, request: HttpRequest, memory: RequestMemory) -> bytes:
        """Return the body, unzipped, if its values are within the limits."""
        limits = self._options.inference.limits
        body = request.body
        if b"gzip" in request.headers.get(b"content-encoding", b""):
            body = _unzipped(body, limits, memory)
        admit_values(body, limits, memory)
        return body

    def _predict(self, route: _Route, body: bytes, call: Call) -> bytes:
        logged = self._logs.begin(route.name)
        parsed = PredictBody(body)
        signature_name = parsed.signature_name or SERVING_DEFAULT
        with self._acquire(route) as servable:
            definition = servable.signatures.get(signature_name)
            if definition is None:
                raise invalid(
                    f'Serving signature name: "{signature_name}" not found in signature def'
                )
            arrays = parsed.tensors(definition)
            outputs = inference.predict_arrays(servable, signature_name, arrays, call)
            if logged is not None and logged.has_room():
                exchange = inference.predict_exchange(servable, signature_name, arrays, outputs)
                asked = signature_name, route.label or ""
                logged.answered("predict", "REST", servable, asked, exchange)
        return row_json(outputs) if parsed.rows else column_json(outputs)

    def _on_examples(
        self,
        kind: str,
        request_type: type[Any],
        answer: Callable[[Servable, Any, Call], Any],
        to_json: Callable[[Any], bytes],
        route: _Route,
        body: bytes,
        call: Call,
    ) -> bytes:
        logged = self._logs.begin(route.name)
        signature_name, request_input = parse_examples(body)
        with self._acquire(route) as servable:
            spec = examples.signature_spec(signature_name)
            request = request_type(input=request_input, model_spec=spec)
            response = answer(servable, request, call)
            if logged is not None and logged.has_room():
                exchange = request.SerializeToString(), response.SerializeToString()
                asked = signature_name or SERVING_DEFAULT, route.label or ""
                logged.answered(kind, "REST", servable, asked, exchange)
            return to_json(response.result)

    def _status(self, route: _Route, body: bytes, call: Call) -> bytes:
        if not route.name:
            raise invalid("Missing model name in request.")
        return _proto_json(inference.status(self._source, route.name, route.version)) + b"\n"

    def _metadata(self, route: _Route, body: bytes, call: Call) -> bytes:
        if not route.name:
            raise invalid("Missing model name in request.")
        with self._acquire(route) as servable:
            spec, signatures = inference.metadata(servable)
        return b"".join(
            (
                b'{\n"model_spec":',
                _proto_json(spec),
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


def _unzipped(body: bytes, limits: RequestLimits, memory: RequestMemory) -> bytes:
    """Return the first gzip member of a body; empty if it is damaged.

    Raises:
        StatusError: It unzips to more than the limits or the memory allow.
    """
    parts: list[bytes] = []
    size, most = 0, _FREE_UNZIPPED + _MAX_RATIO * len(body)
    try:
        for part in _gunzip(body):
            size += len(part)
            limits.check_bytes(size)
            if size > most:
                raise StatusError(
                    Code.RESOURCE_EXHAUSTED,
                    f"the gzip body of {len(body)} bytes unzips to more than {most}; this server "
                    f"takes 1 MiB plus {_MAX_RATIO} times the zipped size: send it unzipped",
                )
            memory.need(2 * len(part))  # the parts, and what they are joined to
            parts.append(part)
    except zlib.error:
        return b""
    return b"".join(parts)


def _gunzip(body: bytes) -> Iterator[bytes]:
    """Yield parts of the first gzip member of limited size; raise `zlib.error` if damaged."""
    unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    for start in range(0, len(body), _UNZIP_STEP):
        data, part = body[start : start + _UNZIP_STEP], b""
        while not unzip.eof and (data or len(part) == _UNZIP_STEP):
            part = unzip.decompress(data, _UNZIP_STEP)
            data = unzip.unconsumed_tail
            yield part
    if not unzip.eof:
        raise zlib.error("the gzip member ends too early")


def start_rest(
    source: ServableSource,
    *,
    host: str,
    port: int,
    options: RestOptions | None = None,
    metrics: Metrics | None = None,
    logs: RequestLogs | None = None,
) -> HttpServer:
    """Serve the REST API until the returned server is stopped.

    Args:
        source: Source of servables.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        options: Limits and features.
        metrics: Metrics of the server.
        logs: Request logs of the models.

    Raises:
        OSError: The server cannot listen on this address.
    """
    options = options or RestOptions()
    handler = RestHandler(source, options, metrics or Metrics(), logs or RequestLogs())
    return HttpServer(
        handler,
        host=host,
        port=port,
        threads=options.threads,
        limits=options.limits,
        room=options.inference.room,
    )
