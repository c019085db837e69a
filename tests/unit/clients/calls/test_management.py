import math
import threading
from typing import Any

import pytest

from shortlist.clients.errors import DeadlineExceeded, LoadFailed, ServableNotFound
from shortlist.clients.types import State
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, toy_model


def test_status_lists_versions_and_errors(client: Any, server: ToyServer) -> None:
    server.models["m"] = toy_model(
        versions={3: State.END, 2: State.AVAILABLE, 1: State.END}, load_errors={3: "no variables/"}
    )
    status = client.status(model="m")
    assert status.model == "m"
    assert [(entry.version, entry.state) for entry in status.versions] == [
        (3, State.END),
        (2, State.AVAILABLE),
        (1, State.END),
    ]
    assert status.available == [2]
    assert (status.versions[0].error_code, status.versions[0].error_message) == (
        "INTERNAL",
        "no variables/",
    )
    assert (status.versions[2].error_code, status.versions[2].error_message) == ("OK", None)
    assert len(client.status(model="m", version=2).versions) == 1


def test_status_of_an_unknown_model_is_servable_not_found(client: Any) -> None:
    with pytest.raises(ServableNotFound, match="nope"):
        client.status(model="nope")


def test_metadata_has_the_signatures_and_the_version(client: Any) -> None:
    metadata = client.metadata(label="stable")
    assert (metadata.model, metadata.version) == ("retrieval_brute_force", 1)
    signature = metadata.signatures["serving_default"]
    assert signature.inputs["user_id"].dtype == "DT_STRING"
    assert signature.inputs["user_id"].shape == (None,)
    assert signature.outputs["scores"].shape == (None, 10)
    assert signature.method_name == "tensorflow/serving/predict"
    assert metadata.signatures["retrieve"].inputs["k"].shape == ()


def test_waiting_ends_when_the_version_is_available(client: Any, server: ToyServer) -> None:
    servable = toy_model(versions={7: State.LOADING})
    server.models["m"] = servable

    def load() -> None:
        servable.versions[7] = State.AVAILABLE

    timer = threading.Timer(0.3, load)
    timer.start()
    status = client.wait_until_available(model="m", version=7, timeout=10, poll_interval=0.02)
    timer.join()
    assert status.available == [7]


def test_waiting_for_a_label_ends_when_it_resolves(client: Any, server: ToyServer) -> None:
    servable = server.models["retrieval_ivf"]

    def label() -> None:
        servable.labels["nightly"] = 2

    timer = threading.Timer(0.2, label)
    timer.start()
    client.wait_until_available(
        model="retrieval_ivf", label="nightly", timeout=10, poll_interval=0.02
    )
    timer.join()


def test_waiting_for_a_failed_load_ends_at_once(client: Any, server: ToyServer) -> None:
    server.models["m"] = toy_model(versions={7: State.END}, load_errors={7: "no variables/"})
    with pytest.raises(LoadFailed, match="version 7 failed to load: INTERNAL: no variables/"):
        client.wait_until_available(model="m", version=7, timeout=math.inf)


def test_a_wait_that_times_out_reports_the_last_state(client: Any, server: ToyServer) -> None:
    server.models["m"] = toy_model(versions={7: State.LOADING})
    with pytest.raises(DeadlineExceeded, match=r"within 0.3 s; last seen: version 7 LOADING"):
        client.wait_until_available(model="m", version=7, timeout=0.3, poll_interval=0.02)


def test_waiting_outlasts_a_server_that_is_not_up(transport: str) -> None:
    with (
        make_client(transport, "127.0.0.1:1") as client,
        pytest.raises(DeadlineExceeded, match=r"last seen: no answer from .*127.0.0.1:1"),
    ):
        client.wait_until_available(timeout=0.5, poll_interval=0.05)
