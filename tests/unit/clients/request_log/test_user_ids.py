"""What logs keep of user ids."""

import numpy as np
import pytest

from shortlist.clients.request_log.records import LogRecord, decode, encode
from shortlist.clients.request_log.user_ids import UserIds, hash_user_id
from shortlist.clients.wire import messages
from tests.unit.clients.request_log.examples import metadata, request, response

KEY = bytes(range(16))


def applied(user_ids: UserIds, asked: messages.PredictRequest) -> LogRecord:
    data = encode(
        metadata().SerializeToString(), asked.SerializeToString(), response().SerializeToString()
    )
    return decode(user_ids.applied(data))


def test_a_hash_is_the_same_everywhere_and_needs_the_key() -> None:
    assert hash_user_id("u1", KEY) == "2111ba429ecddb93ced6f007fe73089f"
    assert hash_user_id("u1", KEY[::-1]) != hash_user_id("u1", KEY)
    assert hash_user_id("", KEY) == ""


@pytest.mark.parametrize(
    ("user_ids", "expected"),
    [
        (UserIds(), ["u1", "", "u1"]),
        (UserIds(ids="drop"), ["", "", ""]),
        (UserIds(ids="hash", key=KEY), [hash_user_id("u1", KEY), "", hash_user_id("u1", KEY)]),
    ],
)
def test_user_ids_are_replaced_and_nothing_else(user_ids: UserIds, expected: list[str]) -> None:
    asked = request(user_id=["u1", "", "u1"], history=[["u1"], ["a"], ["b"]], k=np.int32(3))
    seen = applied(user_ids, asked)
    assert seen.inputs == {"user_id": expected, "history": [["u1"], ["a"], ["b"]], "k": 3}
    assert len(seen.outputs) == 3
    assert (seen.version, seen.latency) == (3, 0.0015)


def test_the_query_of_a_foreign_model_is_a_user_id() -> None:
    data = encode(
        metadata().SerializeToString(),
        request(input_1=np.array([[7], [8]])).SerializeToString(),
        response(output_1=[[0.5], [0.25]], output_2=[["a"], ["b"]]).SerializeToString(),
    )
    seen = decode(UserIds(ids="hash", key=KEY).applied(data))
    assert seen.inputs == {"input_1": [[hash_user_id("7", KEY)], [hash_user_id("8", KEY)]]}
    assert seen.user_ids == [hash_user_id("7", KEY), hash_user_id("8", KEY)]
    other = applied(UserIds(ids="drop", inputs=("customer",)), request(customer=["c"], x=["y"]))
    assert other.inputs == {"customer": [""], "x": ["y"]}


def test_features_of_examples_are_replaced() -> None:
    example = messages.Example()
    example.features.feature["user_id"].bytes_list.value.append(b"u1")
    example.features.feature["age"].int64_list.value.append(7)
    number = messages.Example()
    number.features.feature["user_id"].int64_list.value.append(7)
    both = messages.ExampleListWithContext(examples=[example], context=number)
    asked = messages.ClassificationRequest(input=messages.Input(example_list_with_context=both))
    data = encode(metadata().SerializeToString(), asked.SerializeToString(), b"", kind="classify")
    log = decode(UserIds(ids="hash", key=KEY).applied(data)).message.classify_log
    seen = log.request.input.example_list_with_context
    (first,) = seen.examples
    assert first.features.feature["user_id"].bytes_list.value == [hash_user_id("u1", KEY).encode()]
    assert first.features.feature["age"].int64_list.value == [7]
    context = seen.context.features.feature["user_id"]
    assert context.bytes_list.value == [hash_user_id("7", KEY).encode()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": "mask"}, "ids must be one of keep, hash, drop, got 'mask'"),
        ({"ids": "hash"}, "needs a key"),
        ({"ids": "drop", "key": KEY}, "the others take none"),
        ({"ids": "hash", "key": b"short"}, r"16 to 64 random bytes, got 5"),
        ({"ids": "hash", "key": bytes(65)}, r"16 to 64 random bytes, got 65"),
        ({"ids": "hash", "key": "0123456789abcdef"}, "key takes bytes, got a value of type str"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UserIds(**arguments)  # type: ignore[arg-type]


def test_the_key_is_not_shown() -> None:
    assert "key" not in repr(UserIds(ids="hash", key=KEY))
