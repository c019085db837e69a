"""gRPC calls that never go on, and callers who leave."""

import gzip
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest

from shortlist.clients.wire import messages, methods
from tests.support.attacks import LARGE, SMALL, AttackedServer
from tests.support.http2 import call_headers, connection, data_frames, grpc_message

pytestmark = pytest.mark.slow

BUSY = "Server Threadpool Exhausted"  # as the real server says; clients ask again
PREDICT = methods.PREDICT.path


def users(model: str, rows: int) -> bytes:
    """Return a request for this number of unknown users, two bytes for each."""
    request = messages.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["user_id"]
    tensor.dtype = messages.DataType.DT_STRING
    tensor.tensor_shape.dim.add(size=rows)
    tensor.string_val.extend([b""] * rows)
    return request.SerializeToString()


@contextmanager
def calling(server: AttackedServer) -> Iterator[Any]:
    """Yield a function that sends bytes as a Predict call and returns its code and message."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call: Any = channel.unary_unary(PREDICT)

        def code_of(data: bytes, timeout: float = 30) -> str:
            end = time.monotonic() + timeout
            while True:
                try:
                    call(data, timeout=timeout)
                except grpc.RpcError as exc:
                    error: Any = exc
                    if error.details() != BUSY or time.monotonic() > end:
                        return f"{error.code().name}: {error.details()}"
                    time.sleep(0.05)
                else:
                    return "OK"

        yield code_of


@pytest.mark.parametrize("connections", [1, 6])
def test_calls_that_never_send_their_message(server: AttackedServer, connections: int) -> None:
    """17 of them used to stop everything; here are as many as a connection may have."""
    with ExitStack() as stack, server.attacked(seconds=20):
        for _ in range(connections):
            sock = stack.enter_context(connection(server.grpc_port))
            sock.sendall(b"".join(call_headers(2 * call + 1, PREDICT) for call in range(100)))
        with calling(server) as ask:
            for _ in range(20):
                assert ask(users(SMALL, 1), timeout=5) == "OK"


def test_calls_that_stop_in_the_middle_of_their_message(server: AttackedServer) -> None:
    half = grpc_message(users(SMALL, 1000))[:-1]
    with ExitStack() as stack, server.attacked(seconds=20):
        sock = stack.enter_context(connection(server.grpc_port))
        for call in range(20):
            stream = 2 * call + 1
            sock.sendall(call_headers(stream, PREDICT) + data_frames(stream, half, end=False))
        with calling(server) as ask:
            for _ in range(20):
                assert ask(users(SMALL, 1), timeout=5) == "OK"


def test_answers_that_are_not_read(server: AttackedServer) -> None:
    """Each of these calls has 6 kB and an answer of a megabyte."""
    content = grpc_message(users(SMALL, 3000))
    with (
        server.attacked(seconds=30, memory_mib=200),
        calling(server) as ask,
        connection(server.grpc_port) as sock,
    ):
        for call in range(15):
            stream = 2 * call + 1
            sock.sendall(call_headers(stream, PREDICT) + data_frames(stream, content))
            assert ask(users(SMALL, 3000), timeout=5) == "OK"


def test_message_that_unzips_to_a_thousand_times_its_size(server: AttackedServer) -> None:
    bomb = grpc_message(gzip.compress(bytes(1 << 29)), compressed=True)
    opened = call_headers(1, PREDICT, encoding="gzip")
    with server.attacked(seconds=30), ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(connection(server.grpc_port))
            sock.sendall(opened + data_frames(1, bomb))
        end = time.monotonic() + 3  # gRPC takes some time to unzip
        with calling(server) as ask:
            while time.monotonic() < end:
                assert ask(users(SMALL, 1), timeout=5) == "OK"


def test_callers_who_leave_stop_the_work(server: AttackedServer) -> None:
    """Ten thousand rows of 100,000 candidates take many seconds; no caller waits for them."""
    with server.attacked(seconds=30, memory_mib=400), calling(server) as ask:
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(lambda _: ask(users(LARGE, 10_000), timeout=1), range(4)))
        assert {code.partition(":")[0] for code in codes} == {"DEADLINE_EXCEEDED"}
        started = time.monotonic()
        assert ask(users(LARGE, 1)) == "OK"
        assert time.monotonic() - started < 2
        server.wait_idle(within=3)
