"""The client for TensorFlow Serving's gRPC API."""

import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc

from shortlist.clients import contract
from shortlist.clients._calls.failures import failure, unreachable
from shortlist.clients._calls.retry import RetryPolicy
from shortlist.clients._client import BlockingClient
from shortlist.clients._codecs.protobuf import message_of, method_of, reader_of
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.forks import generation
from shortlist.clients.connection import Headers, Tls, address_list, header_source
from shortlist.clients.errors import DeadlineExceeded, ServingError, error_class_for_code
from shortlist.clients.hooks import Hook

__all__ = [
    "ChannelHealth",
    "GrpcClient",
    "Line",
    "channel_settings",
    "credentials",
    "grpc_failure",
    "is_late",
]

DEFAULT_ADDRESS: Final = f"{contract.DEFAULT_HOST}:{contract.DEFAULT_GRPC_PORT}"


def channel_settings(keepalive: float | None, extra: Sequence[tuple[str, Any]]) -> list[Any]:
    """Options of every channel; those of `extra` win."""
    options: dict[str, Any] = {
        # Python's default of 4 MiB is less than a batch of embeddings.
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        # One name may stand for many pods; pick_first would pin them all to one.
        "grpc.lb_policy_name": "round_robin",
        # Else a new channel would share the lame connection of the one it replaces.
        "grpc.use_local_subchannel_pool": 1,
        # Ours retry, with one deadline and one budget over REST and gRPC alike.
        "grpc.enable_retries": 0,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 1000,
        "grpc.max_reconnect_backoff_ms": 5000,
        # A name's addresses are asked for again this soon after a connection is lost.
        "grpc.dns_min_time_between_resolutions_ms": 1000,
    }
    if keepalive is not None:
        options["grpc.keepalive_time_ms"] = int(keepalive * 1000)
        options["grpc.keepalive_timeout_ms"] = 10_000
    options.update(dict(extra))
    return list(options.items())


def credentials(tls: Tls | bool) -> grpc.ChannelCredentials | None:
    """Credentials of a channel; None for plain text."""
    if tls is False:
        return None
    chosen = Tls() if tls is True else tls

    def read(path: Any) -> bytes | None:
        if path is None:
            return None
        with open(path, "rb") as file:
            return file.read()

    return grpc.ssl_channel_credentials(
        root_certificates=read(chosen.ca),
        private_key=read(chosen.private_key),
        certificate_chain=read(chosen.certificate),
    )


def is_late(error: Any) -> bool:
    """Whether a call ran out of time."""
    return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def grpc_failure(
    error: Any, request: Request, address: str, timeout: float | None, *, current: bool
) -> ServingError:
    """The error of the tree for an `RpcError` (its `code()` and `details()`).

    Args:
        error: The `RpcError`.
        request: What was asked.
        address: Whom.
        timeout: Limit of the try.
        current: Whether the channel was still in use; the end of a lame one cancels its calls.
    """
    code = error.code().name
    details = error.details() or ""
    if code == "UNAVAILABLE" or (code == "CANCELLED" and not current):
        return unreachable(
            request=request, address=address, reason=details, received=f"{code}: {details}"
        )
    if code == "DEADLINE_EXCEEDED" and timeout is not None:
        return DeadlineExceeded(
            f"{request.operation} of {request.target} at {address} did not end within "
            f"{timeout:.3g} s: {details}; raise timeout, or find out why the server is slow",
            received=f"{code}: {details}",
        )
    return failure(
        error_class_for_code(code), request=request, address=address, status=code, text=details
    )


class ChannelHealth:
    """Tells when a channel is lame: up, as far as anybody knows, but nothing comes back.

    A connection whose other end is gone without a word (a pod moved, a firewall forgot it)
    lets every call run into its deadline until TCP gives up, which takes minutes.
    """

    __slots__ = ("_born", "_late")

    _ALLOWED_LATE = 2  # calls in a row; one may be a slow model
    _LEAST_AGE = 1.0  # seconds, so that a slow server is not buried in new connections

    def __init__(self) -> None:
        self._born = time.monotonic()
        self._late = 0

    def good(self) -> None:
        """Notes that something came back."""
        self._late = 0

    def late(self) -> bool:
        """Notes a call that ran out of time; True if the channel should be replaced."""
        self._late += 1
        old = time.monotonic() - self._born >= self._LEAST_AGE
        return old and self._late >= self._ALLOWED_LATE


class Line:
    """A channel with its calls."""

    __slots__ = ("_calls", "channel", "health")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.health = ChannelHealth()
        self._calls: dict[str, Any] = {}

    def call(self, method: Any) -> Any:
        """The callable of one RPC."""
        found = self._calls.get(method.path)
        if found is None:
            found = self._calls[method.path] = self.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return found


class _GrpcTransport:
    """One channel for each address, made at the first call (again in a forked child)."""

    name = "grpc"

    def __init__(
        self, addresses: list[str], *, tls: Tls | bool, headers: Headers | None, options: list[Any]
    ) -> None:
        self._addresses = addresses
        self._credentials = credentials(tls)
        self._headers = header_source(headers)
        self._options = options
        self._lock = threading.Lock()
        self._lines: dict[int, Line] = {}
        self._retired: dict[int, Line] = {}
        self._born_in = generation()

    def addresses(self) -> Sequence[str]:
        return self._addresses

    def send(self, request: Request, address: int, timeout: float | None) -> Any:
        message = message_of(request)
        headers = self._headers()
        metadata = [(name.lower(), headers[name]) for name in headers] if headers else None
        line = self._lines.get(address)
        if line is None or self._born_in != generation():
            line = self._open(address)
        call = line.call(method_of(request))
        try:
            reply = call(message, timeout=timeout, metadata=metadata)
        except grpc.RpcError as exc:
            raise self._failure(exc, line, request, address, timeout) from exc
        except ValueError as exc:
            # A channel that another thread closed meanwhile; grpc has no class for it.
            raise ValueError(f"the client was closed during the call: {exc}") from exc
        line.health.good()
        return reader_of(request, reply)

    def close(self) -> None:
        with self._lock:
            lines = [*self._lines.values(), *self._retired.values()]
            self._lines, self._retired = {}, {}
        if self._born_in == generation():
            for line in lines:
                line.channel.close()

    def _failure(
        self, exc: Any, line: Line, request: Request, address: int, timeout: float | None
    ) -> ServingError:
        current = self._lines.get(address) is line
        if is_late(exc) and line.health.late() and current:
            self._retire(address, line)
        return grpc_failure(exc, request, self._addresses[address], timeout, current=current)

    def _open(self, address: int) -> Line:
        with self._lock:
            if self._born_in != generation():
                # Channels do not survive a fork. Closing the parent's here could hang.
                self._lines, self._retired, self._born_in = {}, {}, generation()
            line = self._lines.get(address)
            if line is None:
                target = self._addresses[address]
                if self._credentials is None:
                    channel = grpc.insecure_channel(target, options=self._options)
                else:
                    channel = grpc.secure_channel(target, self._credentials, options=self._options)
                line = self._lines[address] = Line(channel)
            return line

    def _retire(self, address: int, line: Line) -> None:
        """Has the next call connect anew; calls still on the old channel keep it for now."""
        with self._lock:
            if self._lines.get(address) is not line:
                return
            del self._lines[address]
            before = self._retired.get(address)
            self._retired[address] = line
        if before is not None:
            before.channel.close()


class GrpcClient(BlockingClient):
    """Client for the gRPC API.

    Connects at the first call and keeps the connection. May be shared between threads.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        model: str = contract.servable_name(contract.DEFAULT_MODEL, contract.DEFAULT_INDEX),
        timeout: float = contract.DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        tls: Tls | bool = False,
        headers: Headers | None = None,
        hooks: Sequence[Hook] = (),
        max_in_flight: int | None = None,
        batch_size: int = 1000,
        parallel: int = 4,
        keepalive: float | None = 300.0,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Prepares the client; opens no connection.

        Args:
            address: `host:port`, any gRPC target such as `dns:///models.example:8500`, or
                several of them, which take turns.
            model: Model name that calls use where they name none.
            timeout: Seconds for a call with its retries, where the call names none.
            retry: When failed calls are tried again.
            tls: True for TLS with the usual certificates, or a `Tls`.
            headers: Metadata to send along, such as `{"authorization": "Bearer …"}`, or a
                function that gives them for each request.
            hooks: Called with a `CallEvent` after each request.
            max_in_flight: Calls at a time; one more fails at once with `TooManyInFlight`.
            batch_size: Users (or candidates, or pairs) in one request; larger batches are split.
            parallel: Requests of one split batch at a time.
            keepalive: Seconds between pings; servers cut clients off that ping
                more often than every 300 s, unless set up for it. None sends none.
            channel_options: More options of gRPC's channels; they win over the client's own.

        Raises:
            ValueError: An argument is wrong.
        """
        transport = _GrpcTransport(
            address_list(address),
            tls=tls,
            headers=headers,
            options=channel_settings(keepalive, channel_options),
        )
        super().__init__(
            transport,
            model=model,
            timeout=timeout,
            retry=retry or RetryPolicy(),
            hooks=hooks,
            max_in_flight=max_in_flight,
            batch_size=batch_size,
            parallel=parallel,
        )
