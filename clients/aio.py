"""The asyncio client for TensorFlow Serving's gRPC API."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

import grpc.aio

from shortlist.clients import contract
from shortlist.clients._calls import flows as _flows
from shortlist.clients._calls import lookups as _lookups
from shortlist.clients._calls.flows import Flow
from shortlist.clients._calls.retrieval import Exclude, Servables, retrieve
from shortlist.clients._calls.retry import RetryPolicy
from shortlist.clients._codecs.protobuf import message_of, method_of, reader_of, server_config
from shortlist.clients._codecs.requests import (
    ClassifyRequest,
    MetadataRequest,
    RegressRequest,
    ReloadRequest,
    Request,
    StatusRequest,
    Target,
)
from shortlist.clients._codecs.values import is_array
from shortlist.clients._engines.asyncio import AsyncEngine
from shortlist.clients._engines.blocking import check_limits
from shortlist.clients._engines.forks import generation
from shortlist.clients.connection import Headers, Tls, address_list, header_source
from shortlist.clients.grpc import (
    DEFAULT_ADDRESS,
    Line,
    channel_settings,
    credentials,
    grpc_failure,
    is_late,
)
from shortlist.clients.hooks import Hook
from shortlist.clients.split import Split
from shortlist.clients.types import (
    Classification,
    Embedding,
    Filter,
    Metadata,
    ModelStatus,
    Prediction,
    Rating,
    Retrieval,
    Similar,
)

__all__ = ["AsyncGrpcClient"]

T = TypeVar("T")


class _AsyncGrpcTransport:
    """One channel for each address, made at the first call within the running loop."""

    name = "grpc"

    def __init__(
        self, addresses: list[str], *, tls: Tls | bool, headers: Headers | None, options: list[Any]
    ) -> None:
        self._addresses = addresses
        self._credentials = credentials(tls)
        self._headers = header_source(headers)
        self._options = options
        self._lines: dict[int, Line] = {}
        self._retired: dict[int, Line] = {}
        self._born_in = generation()

    def addresses(self) -> Sequence[str]:
        return self._addresses

    async def send(self, request: Request, address: int, timeout: float | None) -> Any:
        message = message_of(request)
        headers = self._headers()
        metadata = [(name.lower(), headers[name]) for name in headers] if headers else None
        line = self._lines.get(address)
        if line is None or self._born_in != generation():
            line = self._open(address)
        call = line.call(method_of(request))
        try:
            reply = await call(message, timeout=timeout, metadata=metadata)
        except grpc.RpcError as exc:
            current = self._lines.get(address) is line
            if is_late(exc) and line.health.late() and current:
                await self._retire(address, line)
            name = self._addresses[address]
            raise grpc_failure(exc, request, name, timeout, current=current) from exc
        line.health.good()
        return reader_of(request, reply)

    async def close(self) -> None:
        lines = [*self._lines.values(), *self._retired.values()]
        self._lines, self._retired = {}, {}
        if self._born_in == generation():
            for line in lines:
                await line.channel.close()

    def _open(self, address: int) -> Line:
        if self._born_in != generation():
            # Channels do not survive a fork.
            self._lines, self._retired, self._born_in = {}, {}, generation()
        target = self._addresses[address]
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(target, options=self._options)
        else:
            channel = grpc.aio.secure_channel(target, self._credentials, options=self._options)
        line = self._lines[address] = Line(channel)
        return line

    async def _retire(self, address: int, line: Line) -> None:
        """Has the next call connect anew; calls still on the old channel keep it for now."""
        del self._lines[address]
        before = self._retired.get(address)
        self._retired[address] = line
        if before is not None:
            await before.channel.close()


class AsyncGrpcClient:
    """`GrpcClient` for asyncio: the same methods, arguments and errors, awaited.

    Belongs to the event loop of its first call. Cancelling a task cancels its call.
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
        """Prepares the client; takes what `GrpcClient` takes.

        Raises:
            ValueError: An argument is wrong.
        """
        check_limits(max_in_flight=max_in_flight, batch_size=batch_size, parallel=parallel)
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        self._default = Target(model=model)
        self._timeout = timeout
        self._batch_size = batch_size
        self._servables = Servables()
        transport = _AsyncGrpcTransport(
            address_list(address),
            tls=tls,
            headers=headers,
            options=channel_settings(keepalive, channel_options),
        )
        self._engine = AsyncEngine(
            transport,
            retry=retry or RetryPolicy(),
            hooks=hooks,
            max_in_flight=max_in_flight,
            parallel=parallel,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See `GrpcClient.close`."""
        await self._engine.close()

    async def retrieve(
        self,
        user_ids: Sequence[str],
        *,
        k: int = contract.DEFAULT_K,
        exclude: Exclude | None = None,
        exclude_seen: bool = False,
        filter: Filter | None = None,  # noqa: A002 - the word that users look for
        model: str | None = None,
        version: int | None = None,
        label: str | Split | None = None,
        timeout: float | None = None,
    ) -> list[Retrieval]:
        """See `GrpcClient.retrieve`."""
        split, name = (label, label.fallback) if isinstance(label, Split) else (None, label)
        target = self._target(model, version, name)
        flow = retrieve(
            user_ids,
            target=target,
            split=split,
            k=k,
            exclude=exclude,
            exclude_seen=exclude_seen,
            filter=filter,
            servables=self._servables,
            batch_size=self._batch_size,
        )
        return await self._run(flow, target, timeout)

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
        """See `GrpcClient.similar`."""
        target = self._target(model, version, label)
        flow = _lookups.similar(
            candidate_ids,
            k=k,
            target=target,
            signatures=self._servables.signatures,
            batch_size=self._batch_size,
        )
        return await self._run(flow, target, timeout)

    async def embed(
        self,
        user_ids: Sequence[str],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Embedding]:
        """See `GrpcClient.embed`."""
        target = self._target(model, version, label)
        flow = _lookups.embed(user_ids, target=target, batch_size=self._batch_size)
        return await self._run(flow, target, timeout)

    async def rate(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Rating]:
        """See `GrpcClient.rate`."""
        target = self._target(model, version, label)
        flow = _lookups.rate(pairs, target=target, batch_size=self._batch_size)
        return await self._run(flow, target, timeout)

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
        """See `GrpcClient.predict`."""
        target = self._target(model, version, label)
        if arrays is None:
            arrays = any(is_array(value) for value in inputs.values())
        flow = _flows.predict(
            inputs,
            target=target,
            signature=signature,
            outputs=tuple(outputs),
            arrays=arrays,
            cache=self._servables.signatures,
        )
        return await self._run(flow, target, timeout)

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
        """See `GrpcClient.classify`."""
        target = self._target(model, version, label)
        request = ClassifyRequest(
            target=target, signature=signature, examples=list(examples), context=context
        )
        found: list[Classification] = await self._run(_flows.single(request), target, timeout)
        return found

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
        """See `GrpcClient.regress`."""
        target = self._target(model, version, label)
        request = RegressRequest(
            target=target, signature=signature, examples=list(examples), context=context
        )
        found: list[float] = await self._run(_flows.single(request), target, timeout)
        return found

    async def metadata(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Metadata:
        """See `GrpcClient.metadata`."""
        target = self._target(model, version, label)
        found: Metadata = await self._run(
            _flows.single(MetadataRequest(target=target)), target, timeout
        )
        return found

    async def status(
        self, *, model: str | None = None, version: int | None = None, timeout: float | None = None
    ) -> ModelStatus:
        """See `GrpcClient.status`."""
        target = self._target(model, version, None)
        found: ModelStatus = await self._run(
            _flows.single(StatusRequest(target=target)), target, timeout
        )
        return found

    async def wait_until_available(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float = contract.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float = 0.1,
    ) -> ModelStatus:
        """See `GrpcClient.wait_until_available`."""
        target = self._target(model, version, label)
        flow = _flows.wait(target, timeout=timeout, poll_interval=poll_interval)
        return await self._engine.run(flow, timeout + 1.0)

    async def reload_config(self, config: Any, *, timeout: float | None = None) -> None:
        """See `GrpcClient.reload_config`."""
        request = ReloadRequest(config=server_config(config))
        await self._run(_flows.single(request), None, timeout)

    def _target(self, model: str | None, version: int | None, label: str | None) -> Target:
        if model is None and version is None and label is None:
            return self._default
        name = self._default.model if model is None else model
        return Target(model=name, version=version, label=label)

    async def _run(self, flow: Flow[T], target: Target | None, timeout: float | None) -> T:
        limit = self._timeout if timeout is None else timeout
        return await self._engine.run(flow, limit, target)
