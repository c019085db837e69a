"""One server for all attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import AttackedServer, started_server, write_models

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedServer]:
    ports = request.config.getoption("--attack")
    if ports:
        rpc, rest, *pid = map(int, ports.split(":"))
        yield AttackedServer(grpc_port=rpc, rest_port=rest, pid=next(iter(pid), None))
        return
    folder = tmp_path_factory.mktemp("attacked")
    with started_server(folder, *write_models(folder)) as started:
        yield started
