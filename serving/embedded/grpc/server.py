"""TensorFlow Serving's gRPC services, on grpcio's server."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError

from shortlist.clients.contract import SERVING_DEFAULT, UNLOGGED
from shortlist.clients.wire import messages, methods
from shortlist.serving.embedded.api import examples, inference
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.inference import Call, InferenceOptions
from shortlist.serving.embedded.api.interfaces import Servable, ServableSource
from shortlist.serving.embedded.api.limits import RequestMemory, descriptor_share
from shortlist.serving.embedded.api.message_cost import message_cost
from shortlist.serving.embedded.api.metrics import Metrics
from shortlist.serving.embedded.api.no_effect import fields_without_effect, say_once
from shortlist.serving.embedded.api.request_log import Logged, RequestLogs
from shortlist.serving.embedded.grpc.reflection import PATHS, Reflection
from shortlist.serving.embedded.grpc.waiting import SEATS, WaitingRoom

__all__ = ["REPLACED_ARGUMENTS", "GrpcOptions", "GrpcServer", "start_grpc"]

log = logging.getLogger(__name__)

_MESSAGE_LIMIT: Final = 1024
_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_MAX_WATCHERS: Final = 8
_MAX_READERS: Final = 8  # streams of reflection
_MAX_MANAGEMENT_CALLS: Final = 8  # beside inference, and as many reloads
_SPARE_THREADS: Final = 16  # for refusals
_FOREVER: Final = 86400.0  # grpcio reports some 300 years for a call without a deadline
# Stops a run a little after its caller's deadline, when gRPC itself has reported the error,
# always with the same text.
_AFTER_DEADLINE: Final = 0.2

# Each can be overridden by --grpc_channel_arguments.
_ARGUMENTS: Final[dict[str, str | int]] = {
    "grpc.so_reuseport": 0,
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.max_connection_idle_ms": 300_000,
    "grpc.max_concurrent_streams": 128,  # of one connection; clients queue further calls
    # None: gRPC unzips a message before its size is known here, a thousand bytes of one.
    "grpc.compression_enabled_algorithms_bitset": 1,
    # Find dead clients. Without the second, gRPC waits a minute for the answer to its ping.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.http2.ping_timeout_ms": 20_000,
}
# These cannot, as in the real server; with what to set instead.
REPLACED_ARGUMENTS: Final = {
    "grpc.max_receive_message_length": "--max_request_bytes replaces it",
    "grpc.max_send_message_length": "--max_response_bytes replaces it",
}
_MAX_CONNECTIONS: Final = 4096
_INT32: Final = 2**31 - 1

Behaviour = Callable[[bytes, grpc.ServicerContext, RequestMemory], bytes]


@dataclass(frozen=True, kw_only=True)
class GrpcOptions:
    """Options of the gRPC server.

    Attributes:
        max_threads: `--grpc_max_threads`. At most `max_threads - 1` calls run at a time, as in
            the real server, in which one thread waits for calls. More are refused.
        channel_arguments: Arguments of gRPC itself (`--grpc_channel_arguments`).
        ssl: Key, certificate and client verification for TLS.
        health_service: `--enable_grpc_healthcheck_service`.
        reflection: `--enable_docs`.
        message_seconds: Time limit for the message of a call
            (`--grpc_message_timeout_ms`).
        inference: Flags that change answers, and limits.
    """

    max_threads: int = 8
    channel_arguments: Sequence[tuple[str, str | int]] = ()
    ssl: messages.SSLConfig | None = None
    health_service: bool = False
    reflection: bool = True
    message_seconds: float = 10.0
    inference: InferenceOptions = field(default_factory=InferenceOptions)


class _Places:
    """Calls of one kind that may run at the same time."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        return self._free <= 0

    def enter(self) -> bool:
        """Take a place; False if there is none."""
        with self._lock:
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._free += 1


class _Services(grpc.GenericRpcHandler):
    """Handlers of all methods, on serialised messages."""

    def __init__(
        self, source: ServableSource, options: GrpcOptions, metrics: Metrics, logs: RequestLogs
    ) -> None:
        self._source = source
        self._options = options
        self._metrics = metrics
        self._logs = logs
        self._inferences = _Places(options.max_threads - 1)
        self._management = _Places(_MAX_MANAGEMENT_CALLS)
        self._reloads = _Places(_MAX_MANAGEMENT_CALLS)
        self._watchers = _Places(_MAX_WATCHERS)
        self._readers = _Places(_MAX_READERS)
        self.waiting = WaitingRoom(options.message_seconds, metrics.cancelled_call)
        self.stopping = threading.Event()
        predict = self._inference(methods.PREDICT, inference.predict)
        classify = self._inference(methods.CLASSIFY, examples.classify)
        regress = self._inference(methods.REGRESS, examples.regress)
        behaviours: dict[methods.Method, tuple[_Places, Behaviour]] = {
            methods.PREDICT: (self._inferences, predict),
            methods.CLASSIFY: (self._inferences, classify),
            methods.REGRESS: (self._inferences, regress),
            methods.MULTI_INFERENCE: (self._inferences, self._multi_inference),
            methods.GET_MODEL_METADATA: (self._management, self._metadata),
            methods.GET_MODEL_STATUS: (self._management, self._status),
            methods.HANDLE_RELOAD_CONFIG_REQUEST: (self._reloads, self._reload),
        }
        if options.health_service:
            behaviours[methods.HEALTH_CHECK] = self._management, self._health_check
        # Unary calls as streams of one message: the wire is the same, but the behaviour has the
        # call before its message and can give it up.
        self._handlers: dict[str, tuple[_Places, grpc.RpcMethodHandler[Any, Any]]] = {
            method.path: (
                places,
                grpc.stream_unary_rpc_method_handler(self._behaviour(method, places, behaviour)),
            )
            for method, (places, behaviour) in behaviours.items()
        }
        if options.health_service:
            watch: Any = grpc.stream_stream_rpc_method_handler(self._health_watch)
            self._handlers[methods.HEALTH_WATCH.path] = self._watchers, watch
        if options.reflection:
            served = [*behaviours, *([methods.HEALTH_WATCH] if options.health_service else [])]
            reflect: Any = grpc.stream_stream_rpc_method_handler(
                self._reflection(Reflection(served))
            )
            for path in PATHS:
                self._handlers[path] = self._readers, reflect
        self._unimplemented: Any = grpc.stream_stream_rpc_method_handler(_refuse_unimplemented)
        self._exhausted: Any = grpc.stream_stream_rpc_method_handler(_refuse_exhausted)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return the handler of a call; runs in the thread that waits for calls."""
        entry = self._handlers.get(details.method)
        if entry is None:
            return self._unimplemented
        places, handler = entry
        return self._exhausted if places.full else handler

    def _behaviour(self, method: methods.Method, places: _Places, behaviour: Behaviour) -> Any:
        """Return a behaviour with its limits, errors and memory."""
        options = self._options.inference

        def run(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            data = self._receive(requests, context, method)
            if not places.enter():
                _refuse_exhausted(requests, context)
            memory = RequestMemory(options.room)
            try:
                memory.need(message_cost(data, method.request.DESCRIPTOR, options.limits))
                return behaviour(data, context, memory)
            except StatusError as exc:
                _abort(context, exc)
            except DecodeError:
                context.abort(grpc.StatusCode.INTERNAL, "")
            except Exception:
                log.exception("a call ended in an internal error")
                context.abort(grpc.StatusCode.INTERNAL, "internal error; see the server's log")
            finally:
                places.leave()
                self.waiting.send(context, memory.release)

        return run

    def _receive(
        self, requests: Iterator[bytes], context: grpc.ServicerContext, method: methods.Method
    ) -> bytes:
        try:
            return self.waiting.receive(requests, context)
        except StopIteration:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f'"{method.path}" requires exactly one request message.',
            )

    def _call(self, context: grpc.ServicerContext, memory: RequestMemory) -> Call:
        remaining: float | None = context.time_remaining()
        timeout = None
        if remaining is not None and remaining <= _FOREVER:
            timeout = remaining + _AFTER_DEADLINE
        return Call(
            options=self._options.inference,
            metrics=self._metrics,
            memory=memory,
            timeout=timeout,
            active=context.is_active,
        )

    def _logged(self, context: grpc.ServicerContext, spec: messages.ModelSpec) -> Logged | None:
        logged = self._logs.begin(spec.name)
        if logged is None or any(key == UNLOGGED for key, _ in context.invocation_metadata()):
            return None
        return logged

    def _inference(
        self, method: methods.Method, answer: Callable[[Servable, Any, Call], Any]
    ) -> Behaviour:
        """Return the behaviour of a call that the real server counts."""

        def run(data: bytes, context: grpc.ServicerContext, memory: RequestMemory) -> bytes:
            request = method.request.FromString(data)
            call = self._call(context, memory)
            spec = request.model_spec
            logged = self._logged(context, spec)
            with self._metrics.answering(spec.name, method.name, "GRPC"):
                _need_model_spec(request)
                with inference.acquire(self._source, spec) as servable:
                    response = answer(servable, request, call)
                    if not isinstance(response, bytes):
                        response = response.SerializeToString()
                    if logged is not None:
                        _log(logged, method.name.lower(), servable, spec, (data, response))
                    return response

        return run

    def _multi_inference(
        self, data: bytes, context: grpc.ServicerContext, memory: RequestMemory
    ) -> bytes:
        request = messages.MultiInferenceRequest.FromString(data)
        spec = request.tasks[0].model_spec if request.tasks else messages.ModelSpec()
        logged = self._logged(context, spec)
        with inference.acquire(self._source, spec) as servable:
            answer = examples.multi_inference(servable, request, self._call(context, memory))
            response = answer.SerializeToString()
            if logged is not None:
                _log(logged, "multi_inference", servable, spec, (data, response))
        return response

    def _metadata(self, data: bytes, context: grpc.ServicerContext, memory: RequestMemory) -> bytes:
        request = messages.GetModelMetadataRequest.FromString(data)
        _need_model_spec(request)
        inference.check_metadata_fields(request.metadata_field)
        with inference.acquire(self._source, request.model_spec) as servable:
            return inference.metadata_response(servable).SerializeToString()

    def _status(self, data: bytes, context: grpc.ServicerContext, memory: RequestMemory) -> bytes:
        request = messages.GetModelStatusRequest.FromString(data)
        _need_model_spec(request)
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        return inference.status(self._source, spec.name, version).SerializeToString()

    def _reload(self, data: bytes, context: grpc.ServicerContext, memory: RequestMemory) -> bytes:
        request = messages.ReloadConfigRequest.FromString(data)
        before = {name: self._metrics.value(name) for name in dict.fromkeys(request.metric_names)}
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._logs.check_folders(request.config)
        for line in fields_without_effect(request.config, "a reload"):
            say_once(line)
        self._source.reload(request.config, keep_waiting=context.is_active)
        response = messages.ReloadConfigResponse()
        response.status.SetInParent()
        for name, value in before.items():
            response.metric.add(name=name, int64_value_increase=self._metrics.value(name) - value)
        return response.SerializeToString()

    def _health_check(
        self, data: bytes, context: grpc.ServicerContext, memory: RequestMemory
    ) -> bytes:
        request = messages.HealthCheckRequest.FromString(data)
        if request.service:
            raise StatusError(Code.NOT_FOUND, "service name unknown")
        return _health(messages.HealthCheckResponse.SERVING)

    def _health_watch(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        """Answer once, as the state never changes, and keep the stream open."""
        request = messages.HealthCheckRequest.FromString(
            self._receive(requests, context, methods.HEALTH_WATCH)
        )
        if not self._watchers.enter():
            _refuse_exhausted(requests, context)
        try:
            response = messages.HealthCheckResponse
            yield _health(response.SERVICE_UNKNOWN if request.service else response.SERVING)
            ended = threading.Event()
            if not context.add_callback(ended.set):
                return
            while not ended.wait(0.5) and not self.stopping.is_set():
                pass
        finally:
            self._watchers.leave()

    def _reflection(self, reflection: Reflection) -> Any:
        """Return the behaviour of a stream of reflection requests.

        A stream that waits longer for a request than a call may wait for its message is cancelled.
        """

        def run(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            if not self._readers.enter():
                _refuse_exhausted(requests, context)
            try:
                while True:
                    yield reflection.answer(self.waiting.receive(requests, context))
            except StopIteration:
                return
            except StatusError as exc:
                _abort(context, exc)
            except DecodeError:
                context.abort(grpc.StatusCode.INTERNAL, "")
            finally:
                self._readers.leave()

        return run


def _log(
    logged: Logged,
    kind: str,
    servable: Servable,
    spec: messages.ModelSpec,
    exchange: tuple[bytes, bytes],
) -> None:
    asked = spec.signature_name or SERVING_DEFAULT, spec.version_label
    if logged.has_room():
        logged.answered(kind, "GRPC", servable, asked, exchange)


def _health(status: Any) -> bytes:
    return messages.HealthCheckResponse(status=status).SerializeToString()


def _need_model_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _abort(context: grpc.ServicerContext, error: StatusError) -> NoReturn:
    text = error.message.encode("utf-8", "replace")
    details = error.message
    if len(text) > _MESSAGE_LIMIT:
        details = text[:_MESSAGE_LIMIT].decode("utf-8", "ignore") + "...TRUNCATED"
    context.abort(_STATUS_CODES[int(error.code)], details)


def _refuse_unimplemented(requests: Any, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "")


def _refuse_exhausted(requests: Any, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")


class GrpcServer:
    """A running gRPC server.

    Attributes:
        port: Port of the server; 0 if it has only a socket.
    """

    def __init__(self, server: grpc.Server, services: _Services, port: int) -> None:
        self._server = server
        self._services = services
        self.port = port

    def stop(self, grace: float | None = None) -> None:
        """Stop taking calls and wait up to `grace` seconds for those in flight."""
        self._services.stopping.set()
        self._services.waiting.stop()
        self._server.stop(grace).wait()
        self._services.waiting.close()


def start_grpc(
    source: ServableSource,
    *,
    host: str,
    port: int,
    socket_path: str = "",
    options: GrpcOptions | None = None,
    metrics: Metrics | None = None,
    logs: RequestLogs | None = None,
) -> GrpcServer:
    """Serve gRPC until the returned server is stopped.

    Args:
        source: Source of servables.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        socket_path: UNIX socket to listen on as well.
        options: Limits and services.
        metrics: Metrics of the server.
        logs: Request logs of the models.

    Raises:
        OSError: The server cannot listen on this address.
    """
    options = options or GrpcOptions()
    services = _Services(source, options, metrics or Metrics(), logs or RequestLogs())
    arguments: dict[str, str | int] = {
        **_ARGUMENTS,
        "grpc.max_allowed_incoming_connections": descriptor_share(4, most=_MAX_CONNECTIONS),
        **dict(options.channel_arguments),
        "grpc.max_receive_message_length": min(options.inference.limits.max_bytes, _INT32) or -1,
        "grpc.max_send_message_length": -1,
    }
    # One for every call that may wait or run, so that a new call always finds one.
    threads = (
        options.max_threads
        + _MAX_WATCHERS
        + _MAX_READERS
        + 2 * _MAX_MANAGEMENT_CALLS
        + SEATS
        + _SPARE_THREADS
    )
    pool = ThreadPoolExecutor(threads, thread_name_prefix="grpc")
    server = grpc.server(pool, handlers=[services], options=list(arguments.items()))
    try:
        bound = _listen(server, f"{_bracketed(host)}:{port}", options.ssl)
        if socket_path:
            _listen(server, f"unix:{socket_path}", options.ssl)
    except (RuntimeError, ValueError) as exc:  # ValueError: client_verify without custom_ca
        raise OSError(f"cannot listen for gRPC on {host}:{port}: {exc}") from exc
    server.start()
    return GrpcServer(server, services, bound)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _listen(server: grpc.Server, address: str, ssl: messages.SSLConfig | None) -> int:
    if ssl is None:
        return server.add_insecure_port(address)
    credentials = grpc.ssl_server_credentials(
        [(ssl.server_key.encode(), ssl.server_cert.encode())],
        root_certificates=ssl.custom_ca.encode() or None,
        require_client_auth=ssl.client_verify,
    )
    return server.add_secure_port(address, credentials)
