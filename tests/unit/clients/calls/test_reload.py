from typing import Any

import pytest

from shortlist.clients.errors import InvalidRequest, Unavailable, Unsupported
from shortlist.clients.wire import messages
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer

CONFIG = 'model_config_list { config { name: "m" base_path: "/models/m" } }'


@pytest.fixture(params=["grpc", "aio"])
def grpc_client(request: pytest.FixtureRequest, server: ToyServer) -> Any:
    with make_client(request.param, server.address("grpc")) as client:
        yield client


def test_the_whole_configuration_is_sent(grpc_client: Any, server: ToyServer) -> None:
    grpc_client.reload_config(CONFIG)
    message = messages.ModelServerConfig()
    message.model_config_list.config.add(name="m", base_path="/models/m")
    grpc_client.reload_config(message)
    assert server.configs == [message, message]


def test_a_refused_configuration_is_invalid_request(grpc_client: Any) -> None:
    twice = "model_config_list { config { name: 'm' } config { name: 'm' } }"
    with pytest.raises(InvalidRequest, match="Illegal to list model twice"):
        grpc_client.reload_config(twice)


def test_text_that_is_not_a_configuration_is_a_value_error(
    grpc_client: Any, server: ToyServer
) -> None:
    with pytest.raises(ValueError, match="not the text of a ModelServerConfig"):
        grpc_client.reload_config("model_config_lust {}")
    with pytest.raises(ValueError, match="got dict"):
        grpc_client.reload_config({})
    assert server.calls == []


def test_a_reload_is_never_tried_twice(grpc_client: Any, server: ToyServer) -> None:
    server.fail("UNAVAILABLE", "going down")
    with pytest.raises(Unavailable, match="going down"):
        grpc_client.reload_config(CONFIG)
    assert len(server.calls) == 1


def test_rest_has_no_reload(server: ToyServer) -> None:
    with (
        make_client("rest", server.address("rest")) as client,
        pytest.raises(Unsupported, match=r"use GrpcClient"),
    ):
        client.reload_config(CONFIG)
