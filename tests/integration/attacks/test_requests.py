"""Small requests that ask for much."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from shortlist.clients.wire import messages, methods
from shortlist.serving.embedded.api.tensors import encode_varint
from tests.support.attacks import LARGE, SMALL, AttackedServer

pytestmark = pytest.mark.slow


def field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + encode_varint(len(content)) + content


def request(tensor: bytes, *, more: bytes = b"") -> bytes:
    """Return a Predict request whose `user_id` is this tensor."""
    spec = messages.ModelSpec(name=LARGE).SerializeToString()
    entry = field(1, b"user_id") + field(2, b"\x08\x07" + tensor)
    return field(1, spec) + field(2, entry) + more


def shaped(*sizes: int, strings: bytes = b"") -> bytes:
    shape = messages.TensorShapeProto()
    for size in sizes:
        shape.dim.add(size=size)
    return request(field(2, shape.SerializeToString()) + strings)


MEGA = 2**20
ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "rows without data": (lambda: shaped(250_000), "INVALID_ARGUMENT"),
    "rows that repeat a string": (lambda: shaped(10_000, strings=b"\x42\x00"), "INVALID_ARGUMENT"),
    "more rows than allowed": (
        lambda: shaped(10_001, strings=b"\x42\x00" * 10_001),
        "RESOURCE_EXHAUSTED",
    ),
    "a billion rows of nothing": (lambda: shaped(10**9, 0), "RESOURCE_EXHAUSTED"),
    "nothing, a billion times": (lambda: shaped(0, 10**9), "RESOURCE_EXHAUSTED"),
    "two million strings": (
        lambda: shaped(1, 2 * MEGA, strings=b"\x42\x00" * 2 * MEGA),
        "RESOURCE_EXHAUSTED",
    ),
    "254 axes": (lambda: shaped(*[1] * 254), "INVALID_ARGUMENT"),
    "a million axes": (lambda: request(field(2, b"\x12\x00" * MEGA)), "RESOURCE_EXHAUSTED"),
    "inputs without a name": (lambda: b"\x12\x00" * 16 * MEGA, "RESOURCE_EXHAUSTED"),
    "half a million inputs without a name": (
        lambda: request(b"", more=b"\x12\x00" * (MEGA // 2)),
        "INVALID_ARGUMENT",
    ),
    "two million outputs": (
        lambda: request(b"\x42\x00", more=b"\x1a\x00" * 2 * MEGA),
        "RESOURCE_EXHAUSTED",
    ),
    "tensors in tensors": (lambda: request(nested(100_000)), "INTERNAL"),
    "a name of a megabyte": (
        lambda: field(1, field(1, b"m" * MEGA)) + field(2, field(1, b"x")),
        "NOT_FOUND",
    ),
    "an input name of a megabyte": (
        lambda: field(1, field(1, SMALL.encode())) + field(2, field(1, b"x" * MEGA)),
        "INVALID_ARGUMENT",
    ),
    "64 MiB and a byte": (lambda: bytes(64 * MEGA + 1), "RESOURCE_EXHAUSTED"),
}


def nested(depth: int) -> bytes:
    """Return a tensor in a variant in a tensor in a variant."""
    content = b""
    for _ in range(depth):
        content = field(15, field(3, content)) if len(content) < 30_000 else content
    return content


@pytest.fixture(scope="module")
def channel(server: AttackedServer) -> Any:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=options) as channel:
        yield channel


@pytest.mark.parametrize("name", ATTACKS)
def test_requests_that_grow(server: AttackedServer, channel: grpc.Channel, name: str) -> None:
    make, code = ATTACKS[name]
    data = make()
    call: Any = channel.unary_unary(methods.PREDICT.path)
    with server.attacked(seconds=8, memory_mib=250 + 3 * len(data) / MEGA):
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as caught:
                call(data, timeout=10)
            error: Any = caught.value
            assert error.code().name == code, error.details()
            assert len(error.details()) < 1100


def test_names_do_not_fill_the_memory(server: AttackedServer, channel: grpc.Channel) -> None:
    """The metrics page keeps names that clients invent, but not all of a long one."""
    call: Any = channel.unary_unary(methods.PREDICT.path)
    with server.attacked(seconds=30):
        for number in range(200):
            with pytest.raises(grpc.RpcError):
                call(field(1, field(1, b"%d" % number + b"m" * MEGA)), timeout=10)
