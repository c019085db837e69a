"""Fixtures: a fake server and a client of each kind."""

import asyncio
import inspect
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
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


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority with a server's and a client's certificate."""
    root = tmp_path_factory.mktemp("tls")
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    new += ["-addext", "keyUsage=critical,keyCertSign"]  # demanded from Python 3.13 on
    _openssl(*new, "-keyout", f"{root}/ca.key", "-out", f"{root}/ca.pem", "-subj", "/CN=test-ca")
    for name in ("server", "client"):
        extensions = root / f"{name}.ext"
        extensions.write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        _openssl(*request, "-keyout", f"{root}/{name}.key", "-out", f"{root}/{name}.csr")
        sign = ["x509", "-req", "-in", f"{root}/{name}.csr", "-CA", f"{root}/ca.pem"]
        sign += ["-CAkey", f"{root}/ca.key", "-CAcreateserial", "-days", "2"]
        _openssl(*sign, "-extfile", str(extensions), "-out", f"{root}/{name}.pem")
    return root


@contextmanager
def secured(kind: str, root: Path, *, mutual: bool) -> Iterator[str]:
    if kind != "rest":
        credentials = grpc.ssl_server_credentials(
            [((root / "server.key").read_bytes(), (root / "server.pem").read_bytes())],
            root_certificates=(root / "ca.pem").read_bytes() if mutual else None,
            require_client_auth=mutual,
        )
        with ToyServer(grpc_credentials=credentials) as server:
            yield server.address("grpc")
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root / "server.pem", root / "server.key")
    if mutual:
        context.load_verify_locations(root / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    with ToyServer(rest_tls=context) as server:
        yield server.address("rest")
