"""`AsyncShardedClient`."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self, TypeVar

from shortlist.clients import contract
from shortlist.clients._calls.shards import Asked, Partial, ShardCall, ShardFlow, Shards
from shortlist.clients.aio import AsyncGrpcClient
from shortlist.clients.errors import ServingError
from shortlist.clients.sharded.blocking import checked_addresses
from shortlist.clients.split import Split
from shortlist.clients.types import (
    Embedding,
    Exclude,
    Features,
    Filter,
    Metadata,
    ModelStatus,
    Rating,
    Retrieval,
    Similar,
)

__all__ = ["AsyncShardedClient"]

T = TypeVar("T")


class AsyncShardedClient:
    """`ShardedClient` for asyncio, over `AsyncGrpcClient`: the same methods, awaited."""

    def __init__(
        self,
        clients: Sequence[AsyncGrpcClient],
        *,
        model: str = contract.DEFAULT_SERVABLE,
        timeout: float = contract.DEFAULT_TIMEOUT,
        partial: Partial = "refuse",
    ) -> None:
        """Take one client for each shard; the arguments are those of `ShardedClient`."""
        self.clients = tuple(clients)
        self._shards = Shards(len(self.clients), model=model, timeout=timeout, partial=partial)

    @classmethod
    def from_addresses(
        cls,
        addresses: Sequence[str | Sequence[str]],
        *,
        shards: int | None = None,
        model: str = contract.DEFAULT_SERVABLE,
        timeout: float = contract.DEFAULT_TIMEOUT,
        partial: Partial = "refuse",
        **options: Any,
    ) -> Self:
        """Connect to the servers of the shards, as `ShardedClient.from_addresses`."""
        opened = [
            AsyncGrpcClient(address, **options) for address in checked_addresses(addresses, shards)
        ]
        clients = opened * (shards or 1) if len(opened) == 1 else opened
        return cls(clients, model=model, timeout=timeout, partial=partial)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the clients of all shards. May be called twice."""
        for client in dict.fromkeys(self.clients):
            await client.close()

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
        """Return candidates of the whole corpus for each user; see `ShardedClient.retrieve`."""
        rows = {
            "user_ids": user_ids,
            "history": history,
            "history_ages": history_ages,
            "history_weights": history_weights,
            "features": features,
        }
        options = {
            "exclude": exclude,
            "exclude_history": exclude_history,
            "exclude_seen": exclude_seen,
            "filter": filter,
        }
        asked = Asked(model, version, label, timeout)
        return await self._run(self._shards.ranked("retrieve", rows, options, k=k, asked=asked))

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
        """Return the most similar candidates of the whole corpus."""
        rows = {"candidate_ids": candidate_ids}
        asked = Asked(model, version, label, timeout)
        return await self._run(self._shards.ranked("similar", rows, {}, k=k, asked=asked))

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
        """Return the embedding of each user, from any shard."""
        arguments = {
            "user_ids": user_ids,
            "history": history,
            "history_ages": history_ages,
            "history_weights": history_weights,
            "features": features,
        }
        asked = Asked(model, version, label, timeout)
        return await self._run(self._shards.any("embed", arguments, asked))

    async def rate(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> list[Rating]:
        """Return the predicted rating of each pair, from any shard."""
        asked = Asked(model, version, label, timeout)
        return await self._run(self._shards.any("rate", {"pairs": pairs}, asked))

    async def metadata(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = None,
    ) -> Metadata:
        """Return the signatures and version, from any shard."""
        asked = Asked(model, version, label, timeout)
        return await self._run(self._shards.metadata(asked))

    async def status(
        self, *, model: str | None = None, version: int | None = None, timeout: float | None = None
    ) -> ModelStatus:
        """Return the states of the versions; see `ShardedClient.status`."""
        return await self._run(self._shards.status(Asked(model, version, None, timeout)))

    async def wait_until_available(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float = contract.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float = 0.1,
    ) -> ModelStatus:
        """Poll until the servables of all shards are AVAILABLE."""
        asked = Asked(model, version, label, timeout)
        return await self._run(self._shards.wait(asked, poll_interval=poll_interval))

    async def _run(self, flow: ShardFlow[T]) -> T:
        try:
            calls = next(flow)
            while True:
                replies = await asyncio.gather(*map(self._attempt, calls))
                calls = flow.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _attempt(self, call: ShardCall) -> Any:
        try:
            return await getattr(self.clients[call.number], call.method)(**call.arguments)
        except (ServingError, ValueError) as error:
            return error
