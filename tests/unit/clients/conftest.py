"""Fixtures: a fake server and a client of each kind."""

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest

from shortlist.clients import AsyncGrpcClient, GrpcClient, RestClient
from tests.unit.clients.toys import ToyServer

KINDS = ("rest", "grpc", "aio")


class Awaited:
    """An `AsyncGrpcClient` behind blocking methods, with an event loop in its own thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client = AsyncGrpcClient(*arguments, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            coroutine = attribute(*arguments, **options)
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

        return call

    def close(self) -> None:
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


def make_client(transport: str, address: Any, **options: Any) -> Any:
    kind: Any = {"rest": RestClient, "grpc": GrpcClient, "aio": Awaited}[transport]
    return kind(address, **options)


@pytest.fixture
def server() -> Iterator[ToyServer]:
    with ToyServer() as fake:
        yield fake


@pytest.fixture(params=KINDS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(transport: str, server: ToyServer) -> Iterator[Any]:
    with make_client(transport, server.address(transport)) as opened:
        yield opened
