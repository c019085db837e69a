from typing import Any

import pytest

from shortlist.clients import Limits
from shortlist.clients.errors import SignatureNotFound
from tests.unit.clients.conftest import make_client
from tests.unit.clients.toys import ToyServer, ranking, score


@pytest.mark.parametrize(
    "index", ["brute_force", "ivf"]
)  # one takes k, the export fixed it for the other
def test_similar_candidates_come_best_first(client: Any, index: str) -> None:
    first, second = client.similar(["c03", "nope"], k=4, model=f"retrieval_{index}")
    assert list(first) == [pair for pair in ranking("c03") if pair[0] != "c03"][:4]
    assert (first.candidate_id, first.known_candidate, first.version) == ("c03", True, 2)
    assert second.known_candidate is False


def test_embeddings_come_in_order(client: Any) -> None:
    first, second = client.embed(["42", "7"])
    assert first.user_id == "42"
    assert first.values == pytest.approx([score("42", str(i)) for i in range(3)])
    assert second.values == pytest.approx([score("7", str(i)) for i in range(3)])
    assert first.known_user is None  # this servable does not say


def test_ratings_come_in_order_over_split_batches(transport: str, server: ToyServer) -> None:
    pairs = [("42", f"c{i:02d}") for i in range(25)]
    with make_client(transport, server.address(transport), limits=Limits(batch_size=10)) as client:
        ratings = client.rate(pairs)
    assert [(rating.user_id, rating.candidate_id) for rating in ratings] == pairs
    assert [rating.rating for rating in ratings] == pytest.approx([score(*pair) for pair in pairs])


@pytest.mark.parametrize("call", ["similar", "embed", "rate"])
def test_the_error_for_a_missing_signature_says_what_the_servable_cannot_do(
    client: Any, server: ToyServer, call: str
) -> None:
    servable = server.models["retrieval_brute_force"]
    servable.signatures = {"serving_default": servable.signatures["serving_default"]}
    argument: Any = [("42", "c01")] if call == "rate" else ["42"]
    purpose = {"similar": "find similar", "embed": "embed users", "rate": "predict ratings"}[call]
    only = rf"^servable .* has one signature, serving_default, and cannot {purpose}"
    with pytest.raises(SignatureNotFound, match=only):
        getattr(client, call)(argument)


def test_rate_takes_pairs(client: Any) -> None:
    with pytest.raises(ValueError, match=r"\(user_id, candidate_id\) pairs, got '42'"):
        client.rate(["42"])


def test_classes_come_with_their_scores(client: Any) -> None:
    first, second = client.classify([{"x": 0.5}, {"x": 0.75}], signature="classify")
    assert list(first) == [("low", 0.25), ("high", 0.5)]
    assert list(second) == [("low", 0.25), ("high", 0.75)]


def test_regression_gives_a_number_for_each_example(client: Any) -> None:
    assert client.regress([{"x": 1.0}, {"x": [2.0]}][:1], signature="regress") == [2.5]
    assert client.regress([{"x": 1.0}, {"x": 3.0}], context={"shared": "é"}) == [2.5, 3.5]


def test_a_feature_of_mixed_types_is_refused(client: Any) -> None:
    with pytest.raises(ValueError, match="feature 'x'"):
        client.classify([{"x": [1.0, "a"]}])
