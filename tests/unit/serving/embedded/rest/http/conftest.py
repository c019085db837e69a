"""A running HTTP server."""

from collections.abc import Iterator

import pytest

from shortlist.serving.embedded.rest.http.server import HttpServer
from tests.unit.serving.embedded.rest.http.echo import running


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with running() as started:
        yield started
