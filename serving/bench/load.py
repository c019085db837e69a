"""A load generator: one process that keeps some connections busy, and the parent of several.

REST goes over plain sockets with prepared bytes, gRPC over grpcio with prepared messages,
so that what the generator itself spends (some 30 and 150 us a request) stays small against
the server it shares the machine with.
"""

import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import grpc

from shortlist.clients import contract
from shortlist.clients.wire import messages, methods

__all__ = ["Load", "LoadError", "Measurement", "measure"]

_WARM_UP_SECONDS: Final = 0.5
_REPLY_SECONDS: Final = 60.0
_READ_BYTES: Final = 1 << 20


class LoadError(Exception):
    """The server did not answer as it should, or the generator failed."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to ask, and how hard.

    Attributes:
        transport: `rest` or `grpc`.
        address: `host:port` of that API.
        model: Model name; its default signature takes user ids.
        batch: User ids in one request.
        connections: Connections that each always have one request in flight.
        seconds: How long to measure.
    """

    transport: str
    address: str
    model: str
    batch: int
    connections: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What came of a load.

    Attributes:
        requests: Answered within the time.
        requests_per_second: Over all connections.
        p50_ms: Median latency.
        p99_ms: Latency that one request in a hundred exceeds.
    """

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def measure(load: Load) -> Measurement:
    """Puts a load on a server from processes of their own.

    Raises:
        LoadError: The server refused a request or answered wrongly.
    """
    # grpcio spends more than one process can give to eight connections.
    count = 2 if load.transport == "grpc" and load.connections > 1 else 1
    shares = [load.connections // count + (i < load.connections % count) for i in range(count)]
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "shortlist.serving.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in shares
    ]
    latencies: list[float] = []
    try:
        for child, share in zip(children, shares, strict=True):
            assert child.stdin is not None
            child.stdin.write(json.dumps(asdict(load) | {"connections": share}))
            child.stdin.close()
            child.stdin = None
        for child in children:
            out, err = child.communicate(timeout=load.seconds + _REPLY_SECONDS)
            if child.returncode != 0:
                lines = err.strip().splitlines() or ["no output"]
                raise LoadError(f"{load.transport} {load.address} {load.model}: {lines[-1]}")
            latencies += json.loads(out)
    except subprocess.TimeoutExpired as exc:
        raise LoadError(f"{load.address} did not answer for {_REPLY_SECONDS:g} s") from exc
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
    if not latencies:
        raise LoadError(f"{load.address} answered no request within {load.seconds:g} s")
    latencies.sort()
    return Measurement(
        requests=len(latencies),
        requests_per_second=len(latencies) / load.seconds,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1e3,
    )


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
        """Reads what is there; whether the answer is complete.

        Raises:
            LoadError: The server closed the connection or answered an error.
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
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
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


def _child(arguments: Sequence[str]) -> int:
    load = Load(**json.loads(sys.stdin.read()))
    try:
        latencies = _rest(load) if load.transport == "rest" else _grpc(load)
    except (LoadError, OSError) as exc:
        sys.stderr.write(" ".join(str(exc).split()) + "\n")
        return 1
    sys.stdout.write(json.dumps(latencies))
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1:]))
