"""Indexes that TFRS saved, on a real server, with each transport."""

from typing import Any

import pytest

from shortlist.clients import GrpcClient
from shortlist.clients.cli.main import main
from shortlist.clients.errors import SignatureNotFound
from tests.integration.clients.conftest import Live

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize("model", ["plain", "plain_numbers"])
def test_an_index_of_tfrs_answers_like_its_signature(
    own: Live, real: Any, oracle: GrpcClient, model: str
) -> None:
    users = [1, 7, 99]
    asked = [str(user) for user in users]
    prediction = oracle.predict({"input_1": asked if model == "plain" else users}, model=model)
    for row, retrieval in enumerate(real.retrieve(asked, k=5, model=model)):
        assert list(retrieval.candidate_ids) == list(map(str, prediction["output_2"][row][:5]))
        assert retrieval.scores == pytest.approx(prediction["output_1"][row][:5])
        assert (retrieval.user_id, retrieval.known_user) == (asked[row], None)


def test_what_it_cannot_do_is_named(own: Live, real: Any) -> None:
    only = "has one signature, serving_default, and"
    with pytest.raises(SignatureNotFound, match=f"{only} cannot exclude candidates"):
        real.retrieve(["1"], exclude=["Movie 1 (1901)"], model="plain")
    with pytest.raises(SignatureNotFound, match=f"{only} answers 10 candidates at most"):
        real.retrieve(["1"], k=11, model="plain")
    with pytest.raises(SignatureNotFound, match=f"{only} cannot embed users"):
        real.embed(["1"], model="plain")
    with pytest.raises(ValueError, match=r"takes whole numbers .* got 'abc'"):
        real.retrieve(["abc"], model="plain_numbers")


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_the_commands_ask_it(own: Live, transport: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--servable", "plain_numbers", "--transport", transport]
    options += ["--address", own.address(transport)]
    assert main(["query", "7", *options]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 5
    assert main(["status", *options]) == 0
    assert capsys.readouterr().out.split()[-1] == "AVAILABLE"
    assert main(["predict", "--input", "input_1=[7]", *options]) == 0
    assert "output_2 = [[1" in capsys.readouterr().out
