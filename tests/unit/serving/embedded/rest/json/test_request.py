"""JSON to tensors: both ways agree, and errors are the real server's."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import StatusError
from shortlist.serving.embedded.rest.json import request as json_request
from shortlist.serving.embedded.rest.json.request import PredictBody

FLOAT = messages.DataType.DT_FLOAT
INT8 = messages.DataType.DT_INT8
INT32 = messages.DataType.DT_INT32
INT64 = messages.DataType.DT_INT64
STRING = messages.DataType.DT_STRING
BOOL = messages.DataType.DT_BOOL


def signature(**inputs: int) -> messages.SignatureDef:
    definition = messages.SignatureDef()
    for alias, number in inputs.items():
        definition.inputs[alias].name = f"{alias}:0"
        definition.inputs[alias].dtype = number  # type: ignore[assignment]
    return definition


def tensors(body: str | bytes, **inputs: int) -> dict[str, Any]:
    data = body.encode() if isinstance(body, str) else body
    return PredictBody(data).tensors(signature(**inputs))


def outcome(body: bytes, definition: messages.SignatureDef) -> Any:
    """Return tensors as comparable values, or the error."""
    try:
        arrays = PredictBody(body).tensors(definition)
    except StatusError as exc:
        return exc.code, exc.message
    return {
        alias: (array.dtype, array.shape, repr(array.tolist())) for alias, array in arrays.items()
    }


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**33), 2**33)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.sampled_from(["", "a", "é", "七"])
    | st.just({"b64": "YQ=="})
)
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=8)
named = st.dictionaries(st.sampled_from(["a", "b", "c"]), nested, max_size=3)
requests = st.one_of(
    st.fixed_dictionaries({"instances": st.lists(nested | named, max_size=4)}),
    st.fixed_dictionaries({"inputs": nested | named}),
    st.fixed_dictionaries({"instances": nested, "inputs": nested}),
    st.just({}),
)
types = st.sampled_from([FLOAT, INT8, INT32, INT64, STRING, BOOL, messages.DataType.DT_UINT16])


@given(requests, st.dictionaries(st.sampled_from(["a", "b"]), types, min_size=1))
@example({"instances": None, "inputs": []}, {"a": FLOAT})
def test_quick_and_exact_way_agree(request_: Any, inputs: dict[str, int]) -> None:
    definition = signature(**inputs)
    body = json.dumps(request_).encode()
    quick = outcome(body, definition)
    # Bytes after the document are ignored, but force the exact way.
    assert outcome(body + b" x", definition) == quick


def test_plain_requests_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(body: bytes) -> None:
        raise AssertionError("the exact way was taken")

    monkeypatch.setattr(json_request, "parse_object", refuse)
    assert tensors('{"instances": ["u1", "u2"]}', x=STRING)["x"].tolist() == [b"u1", b"u2"]
    rows = tensors(
        '{"instances": [{"a": 1, "b": [2, 3]}, {"b": [4, 5], "a": 6}]}', a=INT32, b=FLOAT
    )
    assert rows["a"].tolist() == [1, 6]
    assert rows["b"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert tensors('{"inputs": {"a": 7}}', a=INT64)["a"].shape == ()


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ('{"instances": [NaN, Infinity, -Inf]}', [float("nan"), float("inf"), float("-inf")]),
        ('{"instances": [1e300, -1e300]}', [float("inf"), float("-inf")]),
        ('{"instances": [1], "instances": [2]}', [1.0]),
        ('{"inst\\u0061nces": [1]}', [1.0]),
    ],
)
def test_unusual_but_accepted_requests_are_parsed(body: str, values: list[float]) -> None:
    np.testing.assert_array_equal(tensors(body, x=FLOAT)["x"], np.array(values, np.float32))


def test_narrow_integers_keep_their_low_bits() -> None:
    assert tensors('{"instances": [128, -129]}', x=INT8)["x"].tolist() == [-128, 127]


def test_base64_has_the_standard_alphabet_and_complete_or_no_padding() -> None:
    for text in ("//4A", "//4 A\\n", "YQ==", "YQ", "YQ.."):
        tensors(json.dumps({"instances": [{"b64": text.replace("\\n", "\n")}]}), x=STRING)
    for text in ("!!!", "-_-_", "YQ=", "YQ===", "Y", "=YQ="):
        with pytest.raises(StatusError, match="Unable to base64 decode"):
            tensors(json.dumps({"instances": [{"b64": text}]}), x=STRING)


def test_strings_that_are_not_utf8_are_accepted() -> None:
    assert tensors(b'{"instances": ["\xff\xfe"]}', x=STRING)["x"].tolist() == [b"\xff\xfe"]


@pytest.mark.parametrize(
    ("body", "inputs", "message"),
    [
        ("{}", {"x": FLOAT}, "Missing 'inputs' or 'instances' key"),
        ("[]", {"x": FLOAT}, "JSON Value: [] Is not object"),
        ('{"instances": {}}', {"x": FLOAT},
         'JSON Value: {\n    "instances": {}\n} Expecting \'instances\' to be an list/array'),
        ('{"instances": [1, "a"]}', {"x": FLOAT},
         ("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         'JSON Value: "a" Type: String is not of expected type: float')),
        ('{"instances": [[1], [2, 3]]}', {"x": FLOAT},
         ("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting tensor size: 1 but got: 2")),
        ('{"instances": [[[1, 2]], [[1], [2]]]}', {"x": FLOAT},
         ("Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
         "Expecting shape [1,2] but got: [2,1]")),
        ('{"instances": [1]}', {"x": FLOAT, "y": FLOAT},
         ("instances is a plain list, but expecting list of objects as multiple input tensors "
         "required as per tensorinfo_map")),
        ('{"inputs": {"x": 1}}', {"x": FLOAT, "y": FLOAT},
         "Missing named input: y in 'inputs' object."),
        ('{"instances": [{"x": 1}, 2]}', {"x": FLOAT},
         "Expecting object but got list at item 1 of input list"),
    ],
)  # fmt: skip
def test_mismatches_are_refused_with_the_real_servers_messages(
    body: str, inputs: dict[str, int], message: str
) -> None:
    with pytest.raises(StatusError) as caught:
        tensors(body, **inputs)
    assert caught.value.message == message


def test_tensor_with_too_many_dimensions_is_refused() -> None:
    body = b'{"instances": ' + b"[" * 5000 + b"1" + b"]" * 5000 + b"}"
    with pytest.raises(StatusError, match="tensor parsing error: x"):
        tensors(body, x=FLOAT)
