"""The client for TensorFlow Serving's gRPC API."""

from collections.abc import Sequence
from typing import Any

import grpc

from shortlist.clients import contract
from shortlist.clients._calls.call import Caller
from shortlist.clients._calls.retry import RetryPolicy
from shortlist.clients._client import RetrievalClient
from shortlist.clients._codecs.protobuf import message_of, reader_of
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.channels import Channels, targets
from shortlist.clients.connection import Headers, Limits, Tls
from shortlist.clients.hooks import Hook
from shortlist.clients.interface import RetrievalInterface

__all__ = ["GrpcClient"]


class _GrpcTransport(Channels):
    def send(self, request: Request, address: int, timeout: float | None) -> Any:
        message = message_of(request)
        line, call, metadata = self.ready(request, address)
        try:
            reply = call(message, timeout=timeout, metadata=metadata)
        except grpc.RpcError as exc:
            error, stale = self.failed(exc, line, request, address, timeout, metadata)
            if stale is not None:
                stale.close()
            raise error from error.__cause__
        except ValueError as exc:
            # Another thread closed the channel meanwhile; grpc has no class for that.
            raise ValueError(f"the client was closed during the call: {exc}") from exc
        line.late = 0
        return reader_of(request, reply)

    def close(self) -> None:
        for channel in self.drain():
            channel.close()


class GrpcClient(RetrievalClient):
    """Client for the gRPC API.

    Connects at the first call and keeps the connection. May be shared between threads.
    """

    def __init__(
        self,
        address: str | Sequence[str] = contract.DEFAULT_GRPC_ADDRESS,
        *,
        model: str = contract.DEFAULT_SERVABLE,
        timeout: float = contract.DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        tls: Tls | bool = False,
        headers: Headers | None = None,
        hooks: Sequence[Hook] = (),
        limits: Limits | None = None,
        interface: RetrievalInterface | None = None,
        trust_env: bool = False,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Prepare the client, without connecting.

        Args:
            address: `host:port`, any gRPC target such as `dns:///models.example:8500`, or
                several of them, used in turn.
            model: Default model name of the calls.
            timeout: Default timeout of the calls in seconds, retries included.
            retry: Retry policy; `None` for the default one.
            tls: `True` for TLS with the usual certificates, or a `Tls`.
            headers: Metadata to send, such as `{"authorization": "Bearer …"}`, or a function
                that returns it for each request.
            hooks: Functions called with a `CallEvent` after each request.
            limits: Limits on calls, batches and connections.
            interface: Tensors by which `retrieve` and `embed` ask models that Shortlist did not
                export; `None` to find them.
            trust_env: Use the proxy that `grpc_proxy`, `https_proxy` or `http_proxy` names, except
                for the hosts of `no_proxy`.
            channel_options: Additional gRPC channel options; they override the client's own.

        Raises:
            ValueError: An argument is wrong.
        """
        addresses = targets(address)
        caller = Caller(
            addresses,
            "grpc",
            model=model,
            timeout=timeout,
            retry=retry,
            hooks=hooks,
            limits=limits,
            interface=interface,
        )
        transport = _GrpcTransport(
            grpc,
            addresses,
            tls=tls,
            headers=headers,
            limits=caller.limits,
            options=channel_options,
            trust_env=trust_env,
        )
        super().__init__(transport, caller)
