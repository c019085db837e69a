from typing import Any

import numpy as np
import pytest

from tests.unit.clients.toys import ToyServer


def test_arrays_in_give_arrays_out(client: Any) -> None:
    found = client.predict({"x": np.array([2.0, 4.0])}, signature="half_plus_two")
    assert isinstance(found["y"], np.ndarray)
    assert found["y"].dtype == np.float32
    assert found["y"].tolist() == [3.0, 4.0]


def test_arrays_can_be_asked_for_or_declined(client: Any) -> None:
    found = client.predict({"user_id": ["42"]}, arrays=True)
    assert found["scores"].shape == (1, 10)
    assert found["scores"].dtype == np.float32
    assert found["servable_version"].dtype == np.int64
    assert found["known_user"].dtype == np.bool_
    assert isinstance(found["candidate_ids"][0, 0], str)
    plain = client.predict({"x": np.array([2.0])}, signature="half_plus_two", arrays=False)
    assert plain["y"] == [3.0]


def test_every_kind_of_array_is_echoed(client: Any) -> None:
    given: dict[str, Any] = {
        "x": np.array([[1.0, 2.5], [3.0, np.inf]], np.float32),
        "n": np.int64(2**40),
        "flags": np.array([True, False]),
        "blob_bytes": np.array([b"\xff\x00", b"plain"], dtype=object),
    }
    found = client.predict(given, signature="echo")
    for name, value in given.items():
        assert np.array_equal(found[name], value), name
    assert found["blob_bytes"].dtype == object


def test_an_array_of_another_kind_is_refused(client: Any, server: ToyServer) -> None:
    with pytest.raises(ValueError, match=r"input 'n'.*does not fit DT_INT64"):
        client.predict(
            {"x": [[1.0, 2.0]], "n": np.float32(1.5), "flags": [True], "blob_bytes": [b""]},
            signature="echo",
        )
    assert server.signatures() == []
