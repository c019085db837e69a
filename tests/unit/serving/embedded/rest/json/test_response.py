"""Tensors to JSON: numbers, layout and errors of the real server."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.rest.json import response as json_response
from shortlist.serving.embedded.rest.json.response import (
    column_json,
    error_json,
    format_float,
    row_json,
)


def strings(*values: bytes) -> Any:
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("value", "single", "double"),
    [
        (0.1, "0.1", "0.1"),
        (1 / 3, "0.333333343", "0.33333333333333331"),
        (16777216.0, "16777216.0", "16777216.0"),
        (123456.789, "123456.789", "123456.789"),
        (1e10, "1e+10", "1e+10"),
        (1e21, "1e+21", "1e+21"),
        (1e-5, "1e-05", "1e-05"),
        (100.0, "100.0", "100.0"),
        (-0.0, "-0.0", "-0.0"),
        (1e-45, "0.0", None),
        (5e-324, None, "0.0"),
        (float("nan"), "NaN", "NaN"),
        (float("-inf"), "-Infinity", "-Infinity"),
        (3.4028235e38, "3.40282347e+38", None),
    ],
)
def test_numbers_are_written_as_recorded(
    value: float, single: str | None, double: str | None
) -> None:
    if single is not None:
        assert format_float(float(np.float32(value)), single=True).decode() == single
    if double is not None:
        assert format_float(value, single=False).decode() == double


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=64)
    | st.lists(st.floats(width=32, min_value=-1000, max_value=1000), max_size=5)
)
def test_many_floats_at_once_are_the_same_numbers(values: list[float]) -> None:
    array = np.array(values, np.float32)
    tokens = json_response._float_tokens(array, array.tolist())
    for token, value in zip(tokens, values, strict=True):
        alone = format_float(value, single=True)
        assert np.float32(token.decode()).tobytes() == np.float32(alone.decode()).tobytes()


def test_vectorised_scores_have_the_same_digits() -> None:
    scores = np.random.default_rng(5).normal(size=1000).astype(np.float32) * 10
    tokens = json_response._many_floats(scores)
    assert tokens is not None
    expected = [float(format_float(value, single=True)) for value in scores.tolist()]
    assert [float(token) for token in tokens] == expected


def test_row_form_puts_arrays_on_one_line() -> None:
    assert row_json({"y": np.array([3.5, 4.0], np.float32)}) == (
        b'{\n    "predictions": [3.5, 4.0\n    ]\n}'
    )
    ids = strings(b"a", b'b"').reshape(1, 2)
    assert row_json({"ids": ids, "n": np.array([[1, 2]], np.int32)}) == (
        b'{\n    "predictions": [\n        {\n            "ids": ["a", "b\\""],\n'
        b'            "n": [1, 2]\n        }\n    ]\n}'
    )


def test_column_form_puts_each_value_on_a_separate_line() -> None:
    assert column_json({"y": np.array([[1.0], [2.0]])}) == (
        b'{\n    "outputs": [\n        [\n            1.0\n        ],\n'
        b"        [\n            2.0\n        ]\n    ]\n}"
    )
    assert column_json({"y": np.array(3, np.int64)}) == b'{\n    "outputs": 3\n}'
    assert column_json({"y": np.zeros((2, 0))}) == (
        b'{\n    "outputs": [\n        [],\n        []\n    ]\n}'
    )


def test_output_called_bytes_is_base64() -> None:
    answer = json.loads(row_json({"image_bytes": strings(b"\xff\xfe")}))
    assert answer == {"predictions": [{"b64": "//4="}]}


def test_strings_that_are_not_utf8_are_written_as_they_are() -> None:
    assert b'["\xff\xfe\\u0000"' in row_json({"y": strings(b"\xff\xfe\x00").reshape(1, 1)})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_text_survives(texts: list[str]) -> None:
    array = strings(*(text.encode() for text in texts))
    assert json.loads(row_json({"y": array}))["predictions"] == texts
    assert json.loads(column_json({"y": array}))["outputs"] == texts


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.array(1.0)}, "Tensor name: y has no shape information "),
        ({"y": np.zeros(2), "z": np.zeros(3)},
         "Tensor name: z has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(1, np.float16)}, "Failed to write JSON value for tensor type: half"),
        ({"y": np.zeros(1, np.uint16)}, "Failed to write JSON value for tensor type: uint16"),
        ({}, "Cannot convert empty tensor map to JSON"),
    ],
)  # fmt: skip
def test_output_without_a_json_form_is_refused(outputs: Any, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        row_json(outputs)
    assert caught.value.message == message


def test_error_text_is_escaped() -> None:
    assert error_json('a "b"\n') == b'{\n    "error": "a \\"b\\"\\n"\n}'
