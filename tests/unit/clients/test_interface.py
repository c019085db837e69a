"""Tests of how signatures that others exported are understood."""

import pytest

from shortlist.clients.interface import NoInterfaceError, RetrievalInterface, find_interface
from shortlist.clients.types import Signature, TensorSpec

ROWS, MATRIX = (None,), (None, 10)


def _spec(dtype: str, shape: tuple[int | None, ...] | None) -> TensorSpec:
    return TensorSpec(dtype=f"DT_{dtype}", shape=shape, tensor_name="x:0")


def _signature(
    inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec] | None = None
) -> Signature:
    usual = {"output_1": _spec("FLOAT", MATRIX), "output_2": _spec("STRING", MATRIX)}
    return Signature(
        inputs=inputs,
        outputs=usual if outputs is None else outputs,
        method_name="tensorflow/serving/predict",
    )


TFRS = _signature({"input_1": _spec("STRING", ROWS)})
VECTOR = _signature({"input_1": _spec("STRING", ROWS)}, {"output_1": _spec("FLOAT", (None, 32))})


def test_an_index_of_tfrs_is_found_by_its_types() -> None:
    assert find_interface({"serving_default": TFRS}) == RetrievalInterface(
        query="input_1", ids="output_2", scores="output_1"
    )


def test_contract_names_come_before_types() -> None:
    ours = _signature(
        {"user_id": _spec("STRING", ROWS), "device": _spec("STRING", ROWS)},
        {
            "candidate_ids": _spec("STRING", MATRIX),
            "titles": _spec("STRING", MATRIX),
            "scores": _spec("FLOAT", MATRIX),
            "known_user": _spec("BOOL", ROWS),
            "servable_version": _spec("INT64", ROWS),
        },
    )
    assert find_interface({"serving_default": ours}) == RetrievalInterface(others=("device",))


def test_whole_numbers_may_be_ids_on_both_sides() -> None:
    signature = _signature(
        {"input_1": _spec("INT64", ROWS)},
        {"output_1": _spec("FLOAT", MATRIX), "output_2": _spec("INT32", MATRIX)},
    )
    assert find_interface({"serving_default": signature}).ids == "output_2"


def test_other_inputs_are_named() -> None:
    signature = _signature({"user": _spec("STRING", (None, 1)), "when": _spec("FLOAT", ROWS)})
    found = find_interface({"serving_default": signature})
    assert (found.query, found.others) == ("user", ("when",))


def test_serving_default_comes_first_and_then_the_only_one_that_fits() -> None:
    assert find_interface({"a": TFRS, "serving_default": TFRS}).signature == "serving_default"
    assert find_interface({"serving_default": VECTOR, "recommend": TFRS}).signature == "recommend"
    with pytest.raises(NoInterfaceError, match="several signatures retrieve candidates: a, b"):
        find_interface({"a": TFRS, "b": TFRS})


def test_names_decide_where_types_do_not() -> None:
    signature = _signature({"shop": _spec("STRING", ROWS), "person": _spec("STRING", ROWS)})
    with pytest.raises(NoInterfaceError, match=r"input with user ids .* any of person, shop"):
        find_interface({"serving_default": signature})
    found = find_interface({"serving_default": signature}, query="person")
    assert (found.query, found.others) == ("person", ("shop",))


@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        ({}, "there is no signature"),
        ({"serving_default": VECTOR}, "the output with candidate ids of serving_default"),
        (
            {"serving_default": _signature({"user": _spec("STRING", ())})},
            r"user ids of serving_default \(user: DT_STRING \[\]\) .* is missing",
        ),
    ],
)
def test_what_is_missing_is_said(signatures: dict[str, Signature], message: str) -> None:
    with pytest.raises(NoInterfaceError, match=message):
        find_interface(signatures)


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(NoInterfaceError, match=r"'user'; there are: input_1"):
        find_interface({"serving_default": TFRS}, query="user")
    with pytest.raises(NoInterfaceError, match="no signature is called 'x'"):
        find_interface({"serving_default": TFRS}, signature="x")
