"""Matrices of Python values, such as histories: the fast paths say what the slow ones say."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.clients._codecs.json import body_of
from shortlist.clients._codecs.protobuf import message_of
from shortlist.clients._codecs.requests import Input, PredictRequest, Target
from shortlist.clients._codecs.values import flatten
from shortlist.clients.tensors import from_tensor_proto

VALUES = st.one_of(
    st.text(max_size=3), st.floats(width=32, allow_nan=False), st.integers(-9, 9), st.booleans()
)
ROWS = st.tuples(st.integers(0, 4), st.integers(0, 4)).flatmap(
    lambda sizes: st.lists(
        st.lists(VALUES, min_size=sizes[1], max_size=sizes[1]),
        min_size=sizes[0],
        max_size=sizes[0],
    )
)
TARGET = Target(model="m")


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_lists_are_flattened_as_tuples_are(rows: list[list[Any]]) -> None:
    assert flatten(rows) == flatten(tuple(map(tuple, rows)))


@pytest.mark.parametrize(
    ("dtype", "rows"),
    [
        ("DT_STRING", [["a", "", "七人"], ["b", "c", ""]]),
        ("DT_STRING", [[""], [""]]),
        ("DT_FLOAT", [[0.5, -1.0], [20_000_001.0, 1.0]]),
        ("DT_FLOAT", [[], []]),
        ("DT_STRING", [[]]),
    ],
)
def test_both_codecs_write_the_rows(dtype: str, rows: list[list[Any]]) -> None:
    request = PredictRequest(target=TARGET, signature="s", inputs={"x": Input(rows, dtype)})
    assert json.loads(body_of(request) or b"")["inputs"]["x"] == rows
    tensor = message_of(request).inputs["x"]
    assert [dim.size for dim in tensor.tensor_shape.dim] == [len(rows), len(rows[0])]
    value = from_tensor_proto(tensor)
    if dtype == "DT_STRING":
        value = [[item.decode() for item in row] for row in value]
    assert value == [[pytest.approx(item) for item in row] for row in rows]


@pytest.mark.parametrize(
    ("dtype", "rows", "text"),
    [
        ("DT_STRING", [["a"], ["b", "c"]], "ragged value.*pad it to a rectangle"),
        ("DT_STRING", [["a", 5]], r"5 does not fit DT_STRING .*; use str\(5\)"),
        ("DT_FLOAT", [[1.0, True]], "True does not fit DT_FLOAT"),
        ("DT_FLOAT", [[1.0, "2"]], r"'2' does not fit DT_FLOAT .*; use float\('2'\)"),
    ],
)
@pytest.mark.parametrize("encode", [body_of, message_of])
def test_rows_of_wrong_values_are_refused(encode: Any, dtype: str, rows: Any, text: str) -> None:
    request = PredictRequest(target=TARGET, signature="s", inputs={"x": Input(rows, dtype)})
    with pytest.raises(ValueError, match=f"input 'x': {text}"):
        encode(request)
