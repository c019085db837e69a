"""`LocalClient` on the repository that a server serves: the same answers and errors."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shortlist import GrpcClient, LocalClient
from shortlist.clients import RetrievalClient, ServingError
from tests.integration.clients.conftest import Live, _model_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Asked = Callable[[RetrievalClient], Any]

ANSWERED: dict[str, Asked] = {
    "retrieve": lambda client: client.retrieve(["1", "newcomer"], k=25, exclude_seen=True),
    "label": lambda client: client.retrieve(["1"], label="stable"),
    "version": lambda client: client.retrieve(["1"], version=1, exclude={"1": ["x"]}),
    "foreign": lambda client: client.retrieve(["1"], model="plain_numbers"),
    "embed": lambda client: client.embed(["1"]),
    "predict": lambda client: client.predict({"x": [1.0, 2.0]}, model="half_plus_two").outputs,
    "classify": lambda client: client.classify(
        [{"x": 1.0}], model="half_plus_two", signature="classify_x_to_y"
    ),
    "regress": lambda client: client.regress(
        [{"x": 1.0}], model="half_plus_two", signature="regress_x_to_y"
    ),
    "metadata": lambda client: client.metadata(),
    "status": lambda client: client.status(),
    "wait": lambda client: client.wait_until_available(label="stable"),
}
REFUSED: dict[str, Asked] = {
    "model": lambda client: client.retrieve(["1"], model="nope"),
    "version": lambda client: client.retrieve(["1"], version=99),
    "label": lambda client: client.retrieve(["1"], label="nightly"),
    "signature": lambda client: client.predict({"user_id": ["1"]}, signature="nope"),
    "no ratings": lambda client: client.rate([("1", "2")], model="plain"),
    "size": lambda client: client.retrieve(["1"] * 1000, k=2000),
    "inputs": lambda client: client.predict({"x": ["text"]}, model="half_plus_two"),
}


@pytest.fixture(scope="module")
def local(
    live: Live, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalClient]:
    config = tmp_path_factory.mktemp("labels") / "models.config"
    config.write_text(_model_config(repository))
    relative = os.path.relpath(repository)
    with LocalClient(relative, model=live.model, config=config, timeout=60) as client:
        yield client


def test_answers_are_those_of_a_server(own: Live, local: LocalClient, oracle: GrpcClient) -> None:
    for name, ask in ANSWERED.items():
        assert ask(local) == ask(oracle), name


def test_errors_are_those_of_a_server(own: Live, local: LocalClient, oracle: GrpcClient) -> None:
    for name, ask in REFUSED.items():
        raised = []
        for client in (local, oracle):
            with pytest.raises((ServingError, ValueError)) as caught:
                ask(client)
            raised.append((type(caught.value), getattr(caught.value, "received", None)))
        assert raised[0] == raised[1], name
