"""A load generator: one process that keeps some connections busy, and the parent of several.

REST uses plain sockets and prepared bytes, gRPC uses grpcio and prepared messages, so that the
generator itself takes little time (about 30 and 150 us per request) on the machine that it
shares with the server.
"""

import json
import select
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Final

import grpc

from shortlist.clients import contract
from shortlist.clients.bench.process import run_python
from shortlist.clients.errors import ShortlistError
from shortlist.clients.wire import messages, methods

__all__ = ["Load", "LoadError", "Measurement", "measure"]

_WARM_UP_SECONDS: Final = 0.5
_REPLY_SECONDS: Final = 60.0
_READ_BYTES: Final = 1 << 20


class LoadError(ShortlistError):
    """The server gave a wrong answer or none."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests to send, and how many at once.

    Attributes:
        transport: `rest` or `grpc`.
        address: `host:port` of that API.
        model: Model name; its default signature takes user ids.
        batch: User ids per request.
        connections: Connections, each with one request in flight at all times.
        seconds: Duration of the measurement.
    """

    transport: str
    address: str
    model: str
    batch: int
    connections: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Result of a load.

    Attributes:
        requests: Requests answered within the time.
        requests_per_second: Rate over all connections.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
    """

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def measure(load: Load) -> Measurement:
    """Put a load on a server from processes of their own.

    Raises:
        ShortlistError: The server refused a request or gave a wrong answer.
    """
    # grpcio needs more than one process to keep eight connections busy.
    count = 2 if load.transport == "grpc" and load.connections > 1 else 1
    shares = [load.connections // count + (i < load.connections % count) for i in range(count)]
    with ThreadPoolExecutor(count) as threads:
        parts = threads.map(lambda share: _run(replace(load, connections=share)), shares)
        latencies = sorted(chain.from_iterable(parts))
    if not latencies:
        raise LoadError(f"{load.address} answered no request within {load.seconds:g} s")
    return Measurement(
        requests=len(latencies),
        requests_per_second=len(latencies) / load.seconds,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1e3,
    )


def _run(load: Load) -> list[float]:
    """Put a load on a server from a process of its own and return the latencies in seconds."""
    output = run_python(
        *("-m", "shortlist.serving.bench.load"),
        task=f"{load.transport} {load.address} {load.model}",
        timeout=load.seconds + _REPLY_SECONDS,
        order=asdict(load),
    )
    latencies: list[float] = json.loads(output)
    return latencies


def _user_ids(batch: int) -> list[str]:
    return [str(number) for number in range(batch)]


# --- in the child -------------------------------------------------------------------------


class _RestConnection:
    """One connection with one request in flight."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), timeout=_REPLY_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read the available bytes; return True if the answer is complete.

        Raises:
            LoadError: The server closed the connection or answered with an error.
        """
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise LoadError("the server closed the connection")
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self.received[:end].lower()
        start = head.index(b"content-length:") + 15
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(self.received) < end + 4 + length:
            return False
        if not head.startswith(b"http/1.1 200"):
            raise LoadError(self.received[:300].decode("utf-8", "replace"))
        self.received = b""
        return True


def _rest(load: Load) -> list[float]:
    host, _, port = load.address.rpartition(":")
    body = json.dumps({"instances": _user_ids(load.batch)}).encode()
    head = (
        f"POST /v1/models/{load.model}:predict HTTP/1.1\r\nHost: {load.address}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    poller = select.epoll()
    connections = {}
    for _ in range(load.connections):
        connection = _RestConnection(host.strip("[]"), int(port))
        connections[connection.socket.fileno()] = connection
        poller.register(connection.socket, select.EPOLLIN)
        connection.send(request)
    latencies: list[float] = []
    begin = time.perf_counter() + _WARM_UP_SECONDS
    end = begin + load.seconds
    while (now := time.perf_counter()) < end:
        for descriptor, _ in poller.poll(max(0.0, end - now)):
            connection = connections[descriptor]
            if connection.answered():
                now = time.perf_counter()
                if begin <= now < end:
                    latencies.append(now - connection.sent_at)
                connection.send(request)
    return latencies


def _grpc_request(load: Load) -> bytes:
    request = messages.PredictRequest()
    request.model_spec.name = load.model
    tensor = request.inputs[contract.USER_ID]
    tensor.dtype = messages.DataType.DT_STRING
    tensor.tensor_shape.dim.add(size=load.batch)
    tensor.string_val.extend(user_id.encode() for user_id in _user_ids(load.batch))
    return request.SerializeToString()


def _grpc_connection(
    load: Load, request: bytes, latencies: list[float], errors: list[BaseException]
) -> None:
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    ]
    try:
        with grpc.insecure_channel(load.address, options=options) as channel:
            grpc.channel_ready_future(channel).result(timeout=_REPLY_SECONDS)
            call: Any = channel.unary_unary(methods.PREDICT.path)
            begin = time.perf_counter() + _WARM_UP_SECONDS
            end = begin + load.seconds
            while (sent := time.perf_counter()) < end:
                call(request, timeout=_REPLY_SECONDS)
                now = time.perf_counter()
                if begin <= now < end:
                    latencies.append(now - sent)
    except (grpc.RpcError, grpc.FutureTimeoutError) as exc:
        errors.append(exc)


def _grpc(load: Load) -> list[float]:
    request = _grpc_request(load)
    latencies: list[float] = []
    errors: list[BaseException] = []
    threads = [
        threading.Thread(target=_grpc_connection, args=(load, request, latencies, errors))
        for _ in range(load.connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        failure: Any = errors[0]
        code = failure.code().name if isinstance(failure, grpc.Call) else type(failure).__name__
        details = failure.details() if isinstance(failure, grpc.Call) else ""
        raise LoadError(f"{code}: {details}")
    return latencies


def _child() -> int:
    load = Load(**json.loads(sys.stdin.read()))
    try:
        latencies = _rest(load) if load.transport == "rest" else _grpc(load)
    except (LoadError, OSError) as exc:
        sys.stderr.write(" ".join(str(exc).split()) + "\n")
        return 1
    sys.stdout.write(json.dumps(latencies))
    return 0


if __name__ == "__main__":
    sys.exit(_child())
