"""`shortlist query` on models that Shortlist did not export."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from shortlist.clients import RetrievalInterface
from shortlist.clients.cli.main import main
from shortlist.clients.testing import FakeModel, FakeServer
from tests.unit.clients.toys import ranking

STRINGS = ("DT_STRING", [-1])


@pytest.fixture
def model() -> FakeModel:
    interface = RetrievalInterface(query="person", ids="output_2", scores="output_1")
    inputs = {"person": STRINGS, "shop": STRINGS}
    return FakeModel(interface=interface, inputs=inputs)


@pytest.fixture(params=["rest", "grpc"])
def run(
    request: pytest.FixtureRequest, model: FakeModel, capsys: pytest.CaptureFixture[str]
) -> Iterator[Any]:
    with FakeServer({"plain": model}) as server:
        address = server.rest_address if request.param == "rest" else server.grpc_address

        def call(verb: str, *arguments: str) -> tuple[int, str, str]:
            options = ["--servable", "plain", "--transport", request.param, "--address", address]
            status = main([verb, *arguments, *options])
            out, err = capsys.readouterr()
            return status, out, err

        yield call


def test_options_name_the_tensors_of_an_ambiguous_model(run: Any) -> None:
    status, out, err = run("query", "42")
    assert (status, out) == (1, "")
    assert "could be any of person, shop; choose by --signature, --input, --ids and --scores" in err
    status, out, err = run("query", "42", "--input", "person", "--feature", "shop=north", "--json")
    assert (status, err) == (0, "")
    (retrieval,) = json.loads(out)
    assert retrieval["known_user"] is None
    pairs = [(pair["candidate_id"], pair["score"]) for pair in retrieval["candidates"]]
    assert pairs == ranking("42/north")[:10]


def test_a_missing_input_names_its_option(run: Any) -> None:
    status, _, err = run("query", "42", "--input", "person")
    assert status == 1
    assert "servable 'plain' needs the features shop (DT_STRING [?]): features=" in err
    assert err.endswith("or --feature shop=mobile\n")


def test_names_that_do_not_exist_are_refused(run: Any) -> None:
    assert (
        "no signature is called 'x'; there are: serving" in run("query", "1", "--signature", "x")[2]
    )
    assert "'user'; there are: person, shop" in run("query", "1", "--input", "user")[2]


def test_positions_instead_of_ids_are_noted(run: Any, model: FakeModel) -> None:
    usual = model.signatures["serving_default"]

    def positions(inputs: Mapping[str, Any], version: int) -> Mapping[str, Any]:
        outputs = usual.run(inputs, version)
        return {**outputs, "output_2": [list(range(len(row))) for row in outputs["output_2"]]}

    ask = ["query", "42", "-k", "2", "--input", "person", "--feature", "shop=north"]
    for dtype in ("DT_INT32", "DT_INT64"):
        outputs = {**usual.outputs, "output_2": (dtype, [-1, 10])}
        model.signatures["serving_default"] = replace(usual, outputs=outputs, run=positions)
        status, out, err = run(*ask)
        assert status == 0
        assert [line.split()[2] for line in out.splitlines()] == ["CANDIDATE", "0", "1"]
        note = "note: the candidate ids (output_2) are int32: positions in the corpus"
        assert err.startswith(note) if dtype == "DT_INT32" else not err


def test_status_and_predict_work_as_on_any_servable(run: Any) -> None:
    assert run("status")[1].split()[-3:] == ["plain", "1", "AVAILABLE"]
    status, out, _ = run("predict", "--input", 'person=["42"]', "--input", 'shop=["north"]')
    assert status == 0
    assert sorted(out.splitlines())[0].startswith("output_1 = [[")
    err = run("predict", "--input", 'who=["42"]')[2]
    assert "signature 'serving_default' of servable 'plain' has no input 'who'" in err
