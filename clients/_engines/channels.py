"""gRPC channels, the same for threads and for asyncio: one per address, replaced if it hangs."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from shortlist.clients import contract
from shortlist.clients._arguments import flag
from shortlist.clients._calls.failures import failure, too_late, unreachable
from shortlist.clients._codecs.protobuf import method_of
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.forks import generation
from shortlist.clients._printable import without_secrets
from shortlist.clients.connection import (
    Headers,
    Limits,
    Tls,
    address_list,
    checked_tls,
    header_source,
)
from shortlist.clients.errors import Overloaded, ServingError, error_class_for_code
from shortlist.clients.wire.methods import Method

__all__ = ["Channels", "Line", "targets"]


_SCHEMES: Final = ("dns:", "unix:", "ipv4:", "ipv6:", "xds:", "vsock:")  # of gRPC's names
# REFUSED_STREAM: the connection has as many calls as the server takes, and this one was not begun.
_REFUSED: Final = "RST_STREAM with error code 7"
_MAX_LATE: Final = 2  # calls in a row that time out; a single one may be a slow model
_MIN_AGE: Final = 1.0  # seconds, so that a slow server does not get one connection after the other


def targets(address: str | Sequence[str]) -> list[str]:
    """Return the addresses as gRPC takes them.

    Raises:
        ValueError: One is a URL, or has no port (gRPC would take 443).
    """
    addresses = address_list(address, port=contract.DEFAULT_GRPC_PORT)
    for target in addresses:
        if "/" in target and not target.startswith(_SCHEMES):
            raise ValueError(
                f"a gRPC address looks like 'host:{contract.DEFAULT_GRPC_PORT}', without http:// "
                f"and path, got {target!r}"
            )
        if ":" not in target:
            raise ValueError(
                f"a gRPC address needs a port, got {target!r}; use "
                f"'{target}:{contract.DEFAULT_GRPC_PORT}' (443 for most proxies with TLS)"
            )
    return addresses


def _options(
    limits: Limits, extra: Sequence[tuple[str, Any]], *, trust_env: bool
) -> list[tuple[str, Any]]:
    """Return the options of every channel; those of `extra` win."""
    options: dict[str, Any] = {
        # Otherwise `http_proxy` would send requests and their tokens through a proxy.
        "grpc.enable_http_proxy": int(trust_env),
        # Python's default of 4 MiB is less than a batch of embeddings. Also counts after unzipping.
        "grpc.max_receive_message_length": limits.max_answer_bytes,
        "grpc.max_send_message_length": -1,
        # One name may stand for many pods; pick_first would use only one of them.
        "grpc.lb_policy_name": "round_robin",
        # Otherwise a new channel would share the hanging connection of the one it replaces.
        "grpc.use_local_subchannel_pool": 1,
        # The flows retry, with the same deadline and budget over REST and gRPC.
        "grpc.enable_retries": 0,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 1000,
        "grpc.max_reconnect_backoff_ms": 5000,
        # A name is resolved again this soon after a connection is lost.
        "grpc.dns_min_time_between_resolutions_ms": 1000,
    }
    if limits.keepalive is not None:
        options["grpc.keepalive_time_ms"] = int(limits.keepalive * 1000)
        options["grpc.keepalive_timeout_ms"] = 10_000
    options.update(dict(extra))
    return list(options.items())


def _credentials(tls: Tls | bool) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel; `None` for plain text."""
    checked = checked_tls(tls)
    if checked is False:
        return None
    chosen = Tls() if checked is True else checked

    def read(path: str | Path | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return grpc.ssl_channel_credentials(
        root_certificates=read(chosen.ca),
        private_key=read(chosen.private_key),
        certificate_chain=read(chosen.certificate),
    )


class Line:
    """A channel with its callables, and the number of calls in a row that timed out.

    If the other end vanishes silently (a pod moved, a firewall forgot the connection), every call
    times out until TCP gives up, which takes minutes.
    """

    __slots__ = ("_born", "_calls", "channel", "late")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.late = 0
        self._born = time.monotonic()
        self._calls: dict[str, Any] = {}

    def call(self, method: Method) -> Any:
        """Return the callable of one RPC."""
        call = self._calls.get(method.path)
        if call is None:
            call = self._calls[method.path] = self.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return call

    def hangs(self) -> bool:
        """Record a call that timed out; return whether to replace the channel."""
        self.late += 1
        return self.late >= _MAX_LATE and time.monotonic() - self._born >= _MIN_AGE


class Channels:
    """One channel per address, opened by the first call (again in a forked child)."""

    def __init__(
        self,
        library: Any,
        addresses: Sequence[str],
        *,
        tls: Tls | bool,
        headers: Headers | None,
        limits: Limits,
        options: Sequence[tuple[str, Any]],
        trust_env: bool,
    ) -> None:
        """Prepare the channels of `library`, either `grpc` or `grpc.aio`."""
        self._library = library
        self._addresses = addresses
        self._credentials = _credentials(tls)
        self._headers = header_source(headers)
        self._options = _options(limits, options, trust_env=flag("trust_env", trust_env))
        self._lock = threading.Lock()
        self._lines: dict[int, Line] = {}
        self._retired: dict[int, Line] = {}
        self._born_in = generation()

    def ready(self, request: Request, address: int) -> tuple[Line, Any, Any]:
        """Return the line to a server, the request's callable there, and the metadata."""
        headers = self._headers()
        metadata = [(name.lower(), headers[name]) for name in headers] if headers else None
        line = self._lines.get(address)
        if line is None or self._born_in != generation():
            line = self._open(address)
        return line, line.call(method_of(request)), metadata

    def _open(self, address: int) -> Line:
        with self._lock:
            if self._born_in != generation():
                # Channels do not survive a fork. Closing the parent's here could hang.
                self._lines, self._retired, self._born_in = {}, {}, generation()
            line = self._lines.get(address)
            if line is None:
                target, options = self._addresses[address], self._options
                if self._credentials is None:
                    channel = self._library.insecure_channel(target, options=options)
                else:
                    channel = self._library.secure_channel(
                        target, self._credentials, options=options
                    )
                line = self._lines[address] = Line(channel)
            return line

    def failed(
        self,
        error: Any,
        line: Line,
        request: Request,
        address: int,
        timeout: float | None,
        metadata: Any,
    ) -> tuple[ServingError, Any]:
        """Return the error for an `RpcError` with its cause, and a channel to close, if any."""
        current = self._lines.get(address) is line
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        stale = self._retire(address, line) if late and line.hangs() and current else None
        name = self._addresses[address]
        code, sent = error.code().name, error.details() or ""
        details = without_secrets(sent, [value for _, value in metadata or ()])
        received = f"{code}: {details}"
        refused = code == "UNAVAILABLE" and _REFUSED in details
        # The end of a hanging channel cancels its calls.
        if not refused and (code == "UNAVAILABLE" or (code == "CANCELLED" and not current)):
            raised: ServingError = unreachable(
                request=request,
                address=name,
                tls=self._credentials is not None,
                reason=details.rpartition("last error: ")[2],
                received=received,
            )
        elif late and timeout is not None:
            raised = too_late(
                request=request, address=name, timeout=timeout, reason=details, received=received
            )
        else:
            kind = Overloaded if refused else error_class_for_code(code)
            raised = failure(kind, request=request, address=name, status=code, text=details)
        raised.__cause__ = error if details == sent else None  # a traceback shows the cause
        return raised, stale

    def _retire(self, address: int, line: Line) -> Any:
        """Make the next call connect again; return a channel that is no longer in use.

        Calls on the old channel keep it until the next one is retired.
        """
        with self._lock:
            if self._lines.get(address) is not line:
                return None
            del self._lines[address]
            before = self._retired.get(address)
            self._retired[address] = line
        return None if before is None else before.channel

    def drain(self) -> list[Any]:
        """Forget all channels; return those to close."""
        with self._lock:
            lines = [*self._lines.values(), *self._retired.values()]
            self._lines, self._retired = {}, {}
        return [line.channel for line in lines] if self._born_in == generation() else []
