"""The parser accepts and refuses what RapidJSON does, with its messages and offsets."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.serving.embedded.rest.json.parser import JsonError, JsonObject, parse_json
from shortlist.serving.embedded.rest.json.writer import debug_string, json_escape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"  ", "The document is empty. at offset: 2"),
        (b"hello", "Invalid value. at offset: 0"),
        (b'{"instances": [01.0]}', "Missing a comma or ']' after an array element. at offset: 16"),
        (b"[1,]", "Invalid value. at offset: 3"),
        (b'{"a":1,}', "Missing a name for object member. at offset: 7"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a":1', "Missing a comma or } after an object member. at offset: 6"),
        (b"[nul]", "Invalid value. at offset: 4"),
        (b"[Infinit]", "Invalid value. at offset: 8"),
        (b"[-]", "Invalid value. at offset: 2"),
        (b'"abc', "Missing a closing quotation mark in string. at offset: 4"),
        (b'"a\nb"', "Invalid escape character in string. at offset: 2"),
        (b'"a\\x"', "Invalid escape character in string. at offset: 2"),
        (b'"\\ud83c"', "The surrogate pair in string is invalid. at offset: 1"),
        (b'"\\ud83c\\u0041"', "The surrogate pair in string is invalid. at offset: 1"),
        (b'"\\u12"', "Incorrect hex digit after \\u escape in string. at offset: 1"),
        (b"[1e400]", "Number too big to be stored in double. at offset: 1"),
        (b"[1.x]", "Miss fraction part in number. at offset: 3"),
        (b"[1e+x]", "Miss exponent in number. at offset: 4"),
        (b"\xff\xfe{\x00", "Invalid value. at offset: 0"),
    ],
)
def test_malformed_text_is_refused_with_rapidjsons_messages(text: bytes, message: str) -> None:
    with pytest.raises(JsonError) as caught:
        parse_json(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[NaN]", [math.nan]),
        (b"[Infinity,-Infinity,Inf,-Inf]", [math.inf, -math.inf, math.inf, -math.inf]),
        (b'{"a":1} trailing', [(b"a", 1)]),
        (b'{"a":1}{"a":2}', [(b"a", 1)]),
        (b"[1]\x00", [1]),
        (b"\xef\xbb\xbf[1]", [1]),
        (b'"\xff\xfe"', b"\xff\xfe"),
        (b'"\\udc00"', b"\xed\xb0\x80"),
        (b'"\\ud83c\\udfac"', "🎬".encode()),
        (b"-0", 0),
        (b"18446744073709551615", 18446744073709551615),
        (b"-9223372036854775808", -9223372036854775808),
        (b"1e-400", 0.0),
    ],
)
def test_invalid_json_that_the_real_server_accepts_is_parsed(text: bytes, value: Any) -> None:
    assert repr(parse_json(text)) == repr(value)


def test_integers_beyond_64_bits_become_rapidjsons_doubles() -> None:
    # Recorded: one unit in the last place off the nearest double.
    assert parse_json(b"123456789012345678901234567890") == 1.2345678901234566e29


def test_first_of_equal_keys_counts() -> None:
    document = parse_json(b'{"a":1,"a":2}')
    assert isinstance(document, JsonObject)
    assert document.first(b"a") == 1


def test_very_deep_nesting_needs_no_recursion() -> None:
    depth = 200_000
    value = parse_json(b"[" * depth + b"]" * depth)
    for _ in range(depth - 1):
        [value] = value
    assert value == []


strings = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | strings,
    lambda inner: st.lists(inner) | st.dictionaries(strings, inner),
    max_leaves=30,
)


def _plain(value: Any) -> Any:
    if isinstance(value, JsonObject):
        return {key.decode(): _plain(item) for key, item in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def _close(left: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(_close(left[k], right[k]) for k in right)
    if isinstance(right, list):
        return len(left) == len(right) and all(map(_close, left, right))
    if isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-15, abs_tol=5e-324) or abs(right) < 1e-307
    return bool(left == right and type(left) is type(right))


@given(json_values, st.booleans())
def test_plain_json_is_parsed_as_by_the_standard_library(value: Any, ensure_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii)
    assert _close(_plain(parse_json(text.encode())), json.loads(text))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1e2, "100.0"),
        (0.1, "0.1"),
        (1e-7, "1e-7"),
        (-1.5e30, "-1.5e30"),
        (1e21, "1e21"),
        (123456789.25, "123456789.25"),
        (1e20, "100000000000000000000.0"),
        (-0.0, "-0.0"),
        (0.000001, "0.000001"),
        (b'q"\\\n\x01\x7f/', '"q\\"\\\\\\n\\u0001\x7f/"'),
        ([], "[]"),
        (JsonObject(), "{}"),
        ([1, [2, 3]], "[1, [2, 3]]"),
        (JsonObject([(b"a", [JsonObject([(b"b", None)])])]),
         '{\n    "a": [{\n            "b": null\n        }]\n}'),
        ([1, math.nan, 2], "[1, "),
    ],
)  # fmt: skip
def test_values_are_quoted_as_rapidjson_writes_them(value: Any, shown: str) -> None:
    assert debug_string(value) == shown


def test_long_values_are_cut_after_the_limit() -> None:
    shown = debug_string([1] * 1000)
    assert 256 <= len(shown) < 270


@given(st.binary())
def test_escaping_keeps_every_byte(data: bytes) -> None:
    assert parse_json(json_escape(data)) == data
