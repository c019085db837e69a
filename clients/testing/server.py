"""The fake server: its models, received calls and scripted failures."""

import ssl
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any, Final, Self

import grpc

from shortlist.clients import contract
from shortlist.clients.testing.grpc import GrpcHandler
from shortlist.clients.testing.model import FakeModel, Refusal
from shortlist.clients.testing.rest import rest_handler
from shortlist.clients.types import State
from shortlist.clients.wire.messages import ModelServerConfig

__all__ = ["FakeServer", "ReceivedCall"]

_MAX_HOLD: Final = 10.0  # seconds, so that a forgotten `resume` does not block a test's end


@dataclass(frozen=True, kw_only=True)
class ReceivedCall:
    """One request that the server received.

    Attributes:
        operation: `predict`, `classify`, `regress`, `status`, `metadata` or `reload_config`.
        model: Model name; empty for `reload_config`.
        signature: Signature name of a `predict`; otherwise empty.
        batch_size: Rows of the largest input of a `predict`; otherwise 0.
        headers: Headers or gRPC metadata by lower-case name.
        inputs: Inputs of a `predict` by name, as nested lists with their padding.
    """

    operation: str
    model: str
    signature: str
    batch_size: int
    headers: Mapping[str, str]
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def history(self) -> list[list[str]]:
        """Return the history of each row, without padding; empty for calls without."""
        rows = self.inputs.get(contract.HISTORY, [])
        return [[candidate_id for candidate_id in row if candidate_id] for row in rows]


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def get_request(self) -> Any:
        sock, address = super().get_request()
        if self.tls is not None:  # the handshake is the handler thread's
            sock = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # many tests have clients that hang up


class FakeServer:
    """A model server for tests, on the loopback interface.

    Starts when it is created and stops with `close`, or at the end of a `with` block.

    Attributes:
        models: The models by name; change them at any time.
        calls: Every request received so far.
        configs: Configurations received by `reload_config`; they change nothing.
        active: Number of requests that are being answered.
        most_active: Largest value of `active` so far.
        grpc_address: `127.0.0.1:PORT` of the gRPC API.
        rest_address: `127.0.0.1:PORT` of the REST API.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel] | None = None,
        *,
        grpc_port: int = 0,
        rest_port: int = 0,
        grpc_credentials: grpc.ServerCredentials | None = None,
        rest_tls: ssl.SSLContext | None = None,
    ) -> None:
        """Start the server.

        Args:
            models: Models by name; one with default settings under the clients' default name
                if not set.
            grpc_port: Port of the gRPC API; 0 for a free one.
            rest_port: Port of the REST API; 0 for a free one.
            grpc_credentials: Server credentials for gRPC over TLS.
            rest_tls: TLS context for REST over HTTPS.
        """
        self.models = dict(models or {contract.DEFAULT_SERVABLE: FakeModel()})
        self.calls: list[ReceivedCall] = []
        self.configs: list[ModelServerConfig] = []
        self.active = 0
        self.most_active = 0
        self._failures: deque[Refusal] = deque()
        self._lock = threading.Lock()
        self._running = threading.Event()
        self._running.set()
        self._pool = ThreadPoolExecutor(16)
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._grpc = grpc.server(self._pool, handlers=[GrpcHandler(self)], options=unlimited)
        bind = f"127.0.0.1:{grpc_port}"
        if grpc_credentials is None:
            grpc_port = self._grpc.add_insecure_port(bind)
        else:
            grpc_port = self._grpc.add_secure_port(bind, grpc_credentials)
        self._rest = _HttpServer(("127.0.0.1", rest_port), rest_handler(self))
        self._rest.tls = rest_tls
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        self.rest_address = f"127.0.0.1:{self._rest.server_address[1]}"
        self._grpc.start()
        self._thread = threading.Thread(target=self._rest.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop both APIs; may be called twice."""
        self.resume()
        self._rest.shutdown()
        self._rest.server_close()
        self._thread.join(5)
        self._grpc.stop(0).wait(5)
        self._pool.shutdown(wait=False)

    def fail(self, code: str, text: str = "scripted failure", *, times: int = 1) -> None:
        """Answer the next requests with a failure.

        Args:
            code: Name of a gRPC status such as `UNAVAILABLE`, or an HTTP status such as `503`
                for requests over REST.
            text: The failure's message.
            times: Number of requests that fail.
        """
        self._failures.extend([Refusal(code, text)] * times)

    def hold(self) -> None:
        """Leave requests unanswered (for at most 10 s) until `resume`."""
        self._running.clear()

    def resume(self) -> None:
        """Answer again after `hold`."""
        self._running.set()

    # --- for both APIs ---------------------------------------------------------------

    @contextmanager
    def receive(
        self,
        operation: str,
        model: str,
        headers: Mapping[str, str],
        *,
        signature: str = "",
        inputs: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Record a request, and raise the next scripted failure if there is one."""
        sizes = [len(value) for value in (inputs or {}).values() if isinstance(value, list)]
        call = ReceivedCall(
            operation=operation,
            model=model,
            signature=signature,
            batch_size=0 if inputs is None else max(sizes, default=1),
            headers=headers,
            inputs=inputs or {},
        )
        with self._lock:
            self.calls.append(call)
            self.active += 1
            self.most_active = max(self.active, self.most_active)
            failure = self._failures.popleft() if self._failures else None
        try:
            self._running.wait(_MAX_HOLD)
            if failure is not None:
                raise failure
            yield
        finally:
            with self._lock:
                self.active -= 1

    def find(self, name: str, version: int | None, label: str | None) -> tuple[FakeModel, int]:
        """Return a model and the version that answers."""
        model = self.models.get(name)
        if model is None:
            # TensorFlow Serving looks the label up first.
            if label is not None:
                raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            raise Refusal("NOT_FOUND", f"Servable not found for request: Latest({name})")
        return model, model.resolve(name, version, label)

    def status(self, name: str, version: int | None) -> list[tuple[int, State, str]]:
        """Return version, state and error of a model's versions, newest first."""
        model = self.models.get(name)
        if model is None or not model.versions:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        if version is not None and version not in model.versions:
            raise Refusal("NOT_FOUND", f"Could not find version {version} of model {name}")
        return [
            (number, state, model.load_errors.get(number, ""))
            for number, state in sorted(model.versions.items(), reverse=True)
            if version in (None, number)
        ]
