"""The estimate of a message's memory, compared with what upb was measured to take."""

import random

import pytest

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.limits import UNLIMITED, RequestLimits
from shortlist.serving.embedded.api.message_cost import message_cost
from shortlist.serving.embedded.api.tensors import encode_varint

SIZE = 100_000  # above the size up to which the worst is assumed


def field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + encode_varint(len(content)) + content


def in_tensor(content: bytes) -> bytes:
    return field(2, field(1, b"x") + field(2, content))


@pytest.mark.parametrize(
    ("data", "factor"),
    [
        (b"\x12\x00" * (SIZE // 2), 88),
        (b"\x12\x02\x12\x00" * (SIZE // 4), 44),
        (in_tensor(b"\x42\x00" * (SIZE // 2)), 16.4),
        (in_tensor(field(2, b"\x12\x00" * (SIZE // 2))), 23),
        (in_tensor(b"\x72\x00" * (SIZE // 2)), 52),
        (in_tensor(field(7, b"\x01" * SIZE)), 7.2),
        (in_tensor(field(10, b"\x01" * SIZE)), 15.4),
        (in_tensor(b"\x38\x01" * (SIZE // 2)), 4.1),
        (b"\x1a\x00" * (SIZE // 2), 16.4),
        (in_tensor(field(4, b"\x01" * SIZE)), 1),
        (in_tensor(field(5, b"\x01" * SIZE)), 1),
    ],
)
def test_estimate_is_above_the_measured_size_and_near_it(data: bytes, factor: float) -> None:
    cost = message_cost(data, messages.PredictRequest.DESCRIPTOR, UNLIMITED)
    assert factor < cost / len(data) < 6 * factor + 20


def test_small_messages_are_not_looked_at() -> None:
    cost = message_cost(b"\xff" * 100, messages.PredictRequest.DESCRIPTOR, UNLIMITED)
    assert cost == 9000


def test_message_with_too_many_fields_is_refused() -> None:
    data = b"\x1a\x00" * SIZE
    with pytest.raises(StatusError) as refused:
        message_cost(data, messages.PredictRequest.DESCRIPTOR, RequestLimits(max_values=SIZE - 1))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_have_a_cost(seed: int) -> None:
    """Messages that the parser will refuse; the estimate must end all the same."""
    rng = random.Random(seed)
    data = bytes(rng.choices([0x0A, 0x12, 0x7A, 0xFF, 0x00, 0x01, 0x42, seed], k=SIZE))
    assert message_cost(data, messages.PredictRequest.DESCRIPTOR, UNLIMITED) >= SIZE
