"""A server that speaks TensorFlow Serving's REST and gRPC about a toy retrieval model.

Answers with the genuine server's texts and forms (typed fields over gRPC, column form
over REST), counts what it gets, and fails on request.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from typing import Any

import grpc

from tests.unit.clients.fake_grpc import GrpcSide
from tests.unit.clients.fake_model import CANDIDATES, STRANGER, Backend, Servable, ranking, score
from tests.unit.clients.fake_rest import RestSide

__all__ = [
    "CANDIDATES",
    "STRANGER",
    "Backend",
    "FakeServer",
    "RestSide",
    "Servable",
    "ranking",
    "running",
    "score",
]


@dataclass
class FakeServer:
    backend: Backend
    grpc_port: int
    rest_port: int

    def address(self, transport: str) -> str:
        port = self.rest_port if transport == "rest" else self.grpc_port
        return f"127.0.0.1:{port}"


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is part of many tests


@contextmanager
def running(grpc_credentials: Any = None, ports: tuple[int, int] = (0, 0)) -> Iterator[FakeServer]:
    """Both servers over one backend, on free ports of the loopback."""
    backend = Backend()
    pool = ThreadPoolExecutor(16)
    server = grpc.server(
        pool,
        handlers=[GrpcSide(backend)],
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    if grpc_credentials is None:
        grpc_port = server.add_insecure_port(f"127.0.0.1:{ports[0]}")
    else:
        grpc_port = server.add_secure_port(f"127.0.0.1:{ports[0]}", grpc_credentials)
    server.start()
    handler = type("Handler", (RestSide,), {"backend": backend})
    rest = _Http(("127.0.0.1", ports[1]), handler)
    thread = threading.Thread(
        target=rest.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield FakeServer(backend, grpc_port, rest.server_address[1])
    finally:
        backend.release.set()
        rest.shutdown()
        rest.server_close()
        thread.join(5)
        server.stop(0).wait(5)
        pool.shutdown(wait=False)
