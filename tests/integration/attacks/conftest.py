"""One server for all attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.attacks import AttackedServer, started_server, write_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shortlist.export.pipeline import ExportResult


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AttackedServer]:
    ports = request.config.getoption("--attack")
    if ports:
        rpc, rest, *pid = map(int, ports.split(":"))
        yield AttackedServer(grpc_port=rpc, rest_port=rest, pid=next(iter(pid), None))
        return
    published: ExportResult = request.getfixturevalue("small_export")
    folder = tmp_path_factory.mktemp("attacked")
    with started_server(folder, *write_models(folder, published.servables)) as started:
        yield started
