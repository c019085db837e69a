"""A fake server and a client of each kind for every test that wants them."""

from collections.abc import Iterator
from typing import Any

import pytest

from clients import GrpcClient, RestClient
from tests.clients.fake_server import FakeServer, running

KINDS = ("rest", "grpc")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as found:
        yield found


def make_client(transport: str, address: Any, **options: Any) -> Any:
    kind: Any = {"rest": RestClient, "grpc": GrpcClient}[transport]
    return kind(address, **options)


@pytest.fixture(params=KINDS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(transport: str, server: FakeServer) -> Iterator[Any]:
    with make_client(transport, server.address(transport)) as found:
        yield found
