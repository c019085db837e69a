from typing import Any

import numpy as np
import pytest

from tests.unit.clients.toys import ToyServer


def test_arrays_in_give_arrays_out(client: Any) -> None:
    prediction = client.predict({"x": np.array([2.0, 4.0])}, signature="half_plus_two")
    assert isinstance(prediction["y"], np.ndarray)
    assert prediction["y"].dtype == np.float32
    assert prediction["y"].tolist() == [3.0, 4.0]


def test_arrays_can_be_asked_for_or_declined(client: Any) -> None:
    prediction = client.predict({"user_id": ["42"]}, arrays=True)
    assert prediction["scores"].shape == (1, 10)
    assert prediction["scores"].dtype == np.float32
    assert prediction["servable_version"].dtype == np.int64
    assert prediction["known_user"].dtype == np.bool_
    assert isinstance(prediction["candidate_ids"][0, 0], str)
    plain = client.predict({"x": np.array([2.0])}, signature="half_plus_two", arrays=False)
    assert plain["y"] == [3.0]


def test_every_kind_of_array_is_echoed(client: Any) -> None:
    inputs: dict[str, Any] = {
        "x": np.array([[1.0, 2.5], [3.0, np.inf]], np.float32),
        "n": np.int64(2**40),
        "flags": np.array([True, False]),
        "blob_bytes": np.array([b"\xff\x00", b"plain"], dtype=object),
    }
    prediction = client.predict(inputs, signature="echo")
    for name, value in inputs.items():
        assert np.array_equal(prediction[name], value), name
    assert prediction["blob_bytes"].dtype == object


def test_an_array_of_another_kind_is_refused(client: Any, server: ToyServer) -> None:
    with pytest.raises(ValueError, match=r"input 'n'.*does not fit DT_INT64"):
        client.predict(
            {"x": [[1.0, 2.0]], "n": np.float32(1.5), "flags": [True], "blob_bytes": [b""]},
            signature="echo",
        )
    assert server.signatures() == []
