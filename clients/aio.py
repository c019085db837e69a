"""The asyncio client for TensorFlow Serving's gRPC API."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc.aio

from shortlist.clients import contract
from shortlist.clients._arguments import seconds
from shortlist.clients._calls import lookups, management
from shortlist.clients._calls import predict as _predict
from shortlist.clients._calls.call import Call, Caller, Flow
from shortlist.clients._calls.explanations import explained
from shortlist.clients._calls.retrieval import retrieve
from shortlist.clients._calls.retry import RetryPolicy
from shortlist.clients._codecs.protobuf import message_of, reader_of
from shortlist.clients._codecs.requests import Request
from shortlist.clients._engines.asyncio import AsyncEngine
from shortlist.clients._engines.channels import Channels, targets
from shortlist.clients.connection import Headers, Limits, Tls
from shortlist.clients.hooks import Hook
from shortlist.clients.interface import RetrievalInterface
from shortlist.clients.split import Split
from shortlist.clients.types import (
    Classification,
    Embedding,
    Exclude,
    Features,
    Filter,
    Metadata,
    ModelStatus,
    Prediction,
    Rating,
    Retrieval,
    Similar,
)

__all__ = ["AsyncGrpcClient"]

P = ParamSpec("P")
T = TypeVar("T")


class _AsyncGrpcTransport(Channels):
    async def send(self, request: Request, address: int, timeout: float | None) -> Any:
        message = message_of(request)
        line, call, metadata = self.ready(request, address)
        try:
            reply = await call(message, timeout=timeout, metadata=metadata)
        except grpc.RpcError as exc:
            error, stale = self.failed(exc, line, request, address, timeout, metadata)
            if stale is not None:
                await stale.close()
            raise error from error.__cause__
        line.late = 0
        return reader_of(request, reply)

    async def close(self) -> None:
        for channel in self.drain():
            await channel.close()


class AsyncGrpcClient:
    """`GrpcClient` for asyncio: the same methods, arguments and errors, awaited.

    Belongs to the event loop of its first call. Cancelling a task cancels its call.
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
        """Prepare the client; the arguments are those of `GrpcClient`.

        Raises:
            ValueError: An argument is wrong.
        """
        addresses = targets(address)
        self._caller = Caller(
            addresses,
            "grpc",
            model=model,
            timeout=timeout,
            retry=retry,
            hooks=hooks,
            limits=limits,
            interface=interface,
        )
        transport = _AsyncGrpcTransport(
            grpc.aio,
            addresses,
            tls=tls,
            headers=headers,
            limits=self._caller.limits,
            options=channel_options,
            trust_env=trust_env,
        )
        self._engine = AsyncEngine(transport, parallel=self._caller.limits.parallel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Later calls raise `ValueError`. May be called twice."""
        self._caller.closed = True
        await self._engine.close()

    async def retrieve(
        self,
        user_ids: Sequence[str] | None = None,
        *,
        history: Sequence[Sequence[str]] | None = None,
        history_ages: Sequence[Sequence[float | None]] | None = None,
        history_weights: Sequence[Sequence[float]] | None = None,
        features: Sequence[Features] | None = None,
        k: int | None = None,
        exclude: Exclude | None = None,
        exclude_history: bool = True,
        exclude_seen: bool = False,
        filter: Filter | None = None,  # noqa: A002 - the word that users look for
        model: str | None = None,
        version: int | None = None,
        label: str | Split | None = None,
        timeout: float | None = None,
    ) -> list[Retrieval]:
        """Return candidates for each user, best first; see `GrpcClient.retrieve`."""
        return await self._run(
            retrieve,
            self._caller.call(model, version, label, timeout),
            user_ids,
            history=history,
            history_ages=history_ages,
            history_weights=history_weights,
            features=features,
            k=k,
            exclude=exclude,
            exclude_history=exclude_history,
            exclude_seen=exclude_seen,
            filter=filter,
        )

    async def similar(
        self,
        candidate_ids: Sequence[str],
        *,
        k: int = contract.DEFAULT_K,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Similar]:
        """Return the most similar candidates of each candidate, best first.

        See `GrpcClient.similar`.
        """
        return await self._run(
            lookups.similar, self._caller.call(model, version, label, timeout), candidate_ids, k=k
        )

    async def embed(
        self,
        user_ids: Sequence[str] | None = None,
        *,
        history: Sequence[Sequence[str]] | None = None,
        history_ages: Sequence[Sequence[float | None]] | None = None,
        history_weights: Sequence[Sequence[float]] | None = None,
        features: Sequence[Features] | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Embedding]:
        """Return the query tower's embedding of each user, in the order of the rows.

        See `GrpcClient.embed`.
        """
        return await self._run(
            lookups.embed,
            self._caller.call(model, version, label, timeout),
            user_ids,
            history=history,
            history_ages=history_ages,
            history_weights=history_weights,
            features=features,
        )

    async def rate(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Rating]:
        """Return the predicted rating of each `(user_id, candidate_id)` pair, in order.

        See `GrpcClient.rate`.
        """
        return await self._run(
            lookups.rate, self._caller.call(model, version, label, timeout), pairs
        )

    async def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        signature: str = contract.SERVING_DEFAULT,
        outputs: Sequence[str] = (),
        arrays: bool | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Run any signature of any servable; see `GrpcClient.predict`."""
        return await self._run(
            _predict.predict,
            self._caller.call(model, version, label, timeout),
            inputs,
            signature=signature,
            outputs=outputs,
            arrays=arrays,
        )

    async def classify(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Classification]:
        """Return the classes of each example, by a signature for `tensorflow/serving/classify`.

        See `GrpcClient.classify`.
        """
        return await self._run(
            _predict.classify,
            self._caller.call(model, version, label, timeout),
            examples,
            context=context,
            signature=signature,
        )

    async def regress(
        self,
        examples: Sequence[Mapping[str, Any]],
        *,
        context: Mapping[str, Any] | None = None,
        signature: str | None = None,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[float]:
        """Return the value of each example, by a signature for `tensorflow/serving/regress`.

        See `GrpcClient.regress`.
        """
        return await self._run(
            _predict.regress,
            self._caller.call(model, version, label, timeout),
            examples,
            context=context,
            signature=signature,
        )

    async def metadata(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Metadata:
        """Return the signatures of a servable and its version; see `GrpcClient.metadata`."""
        return await self._run(
            management.metadata, self._caller.call(model, version, label, timeout)
        )

    async def status(
        self, *, model: str | None = None, version: int | None = None, timeout: float | None = None
    ) -> ModelStatus:
        """Return the states of a model's versions, or of one version.

        See `GrpcClient.status`.
        """
        return await self._run(management.status, self._caller.call(model, version, None, timeout))

    async def wait_until_available(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float = contract.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float = 0.1,
    ) -> ModelStatus:
        """Poll until the servable is AVAILABLE, even if the server is not up yet.

        See `GrpcClient.wait_until_available`.
        """
        return await self._run(
            management.wait,
            self._caller.call(model, version, label, seconds("timeout", timeout) + 1.0),
            timeout=timeout,
            poll_interval=poll_interval,
        )

    async def reload_config(self, config: Any, *, timeout: float | None = None) -> None:
        """Replace the server's whole configuration; gRPC only, and never retried.

        See `GrpcClient.reload_config`.
        """
        await self._run(
            management.reload_config, self._caller.call(None, None, None, timeout), config
        )

    async def _run(
        self,
        flow: Callable[Concatenate[Call, P], Flow[T]],
        call: Call,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._engine.run(explained(call, flow(call, *args, **kwargs)))
