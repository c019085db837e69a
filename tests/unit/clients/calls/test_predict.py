from typing import Any

import pytest

from shortlist.clients.errors import ServableNotFound, SignatureNotFound
from tests.unit.clients.toys import ToyServer

VALUES = {
    "x": [[1.0, 2.5], [3.0, -4.0]],
    "n": 2**40,
    "flags": [True, False],
    "blob_bytes": [b"\xff\x00", b"plain"],
}


def test_python_values_get_the_types_of_the_signature(client: Any) -> None:
    prediction = client.predict(VALUES, signature="echo")
    assert dict(prediction) == VALUES
    assert prediction.model == "retrieval_brute_force"


def test_whole_numbers_are_accepted_for_floats(client: Any) -> None:
    assert client.predict({"x": [2, 4]}, signature="half_plus_two")["y"] == [3.0, 4.0]


def test_strings_come_as_text(client: Any) -> None:
    prediction = client.predict({"user_id": ["42"]})
    assert isinstance(prediction["candidate_ids"][0][0], str)


def test_outputs_can_be_chosen(client: Any) -> None:
    assert list(client.predict({"user_id": ["42"]}, outputs=["scores"])) == ["scores"]


def test_metadata_is_asked_for_once(client: Any, server: ToyServer) -> None:
    for _ in range(3):
        client.predict({"x": [1.0]}, signature="half_plus_two")
    assert server.operations().count("metadata") == 1


def test_a_new_version_with_another_signature_is_noticed(client: Any, server: ToyServer) -> None:
    client.predict({"x": [1.0]}, signature="half_plus_two")
    servable = server.models["retrieval_brute_force"]
    servable.signatures["later"] = servable.signatures["half_plus_two"]
    with pytest.raises(SignatureNotFound, match=r"'nope'.*it has: echo"):
        client.predict({"x": [1.0]}, signature="nope")
    assert "later" in client.metadata().signatures


@pytest.mark.parametrize(
    ("inputs", "signature", "text"),
    [
        ({"z": [1.0]}, "half_plus_two", "has no input 'z'; it has: x"),
        ({"x": ["a"]}, "half_plus_two", r"input 'x': 'a' does not fit DT_FLOAT"),
        ({"x": [[1.0], [1.0, 2.0]]}, "half_plus_two", "ragged"),
        ({**VALUES, "n": 1.5}, "echo", "input 'n': 1.5 does not fit DT_INT64"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    client: Any, inputs: dict[str, Any], signature: str, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        client.predict(inputs, signature=signature)


def test_an_unknown_model_is_servable_not_found(client: Any) -> None:
    with pytest.raises(ServableNotFound, match="nope"):
        client.predict({"x": [1.0]}, model="nope")
