"""The shards of a servable answer, merged, as the servable of the whole corpus does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig
from shortlist.serving.repository.version import Shard
from tests.support.retrieval_oracle import (
    CANDIDATES,
    NUM_CANDIDATES,
    TOP_K,
    USERS,
    QueryRequest,
    Request,
    best,
    embedding,
    query_requests,
    requests,
    rows,
    servable,
)

COUNT = 2
KINDS: dict[str, IndexConfig] = {
    "brute_force": BruteForceConfig(),
    "ivf": IvfConfig(num_leaves=4, num_leaves_to_search=4),
}


@pytest.fixture(scope="module", params=["brute_force", pytest.param("ivf", marks=pytest.mark.slow)])
def shards(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return [
        servable(request.param, KINDS[request.param], shard=Shard(number=number, count=COUNT))
        for number in range(COUNT)
    ]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return servable("brute_force", BruteForceConfig())


examples = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def merged(answers: list[dict[str, tf.Tensor]]) -> list[list[tuple[float, int]]]:
    """Negative scores and positions in the corpus, best first, for each row."""
    result: list[list[tuple[float, int]]] = []
    for number, (all_ids, all_scores) in enumerate(map(rows, answers)):
        result = result or [[] for _ in all_ids]
        for row, (ids, scores) in enumerate(zip(all_ids, all_scores, strict=True)):
            own = [CANDIDATES.index(candidate) for candidate in ids if candidate]
            assert all(position % COUNT == number for position in own)
            result[row] += zip([-score for score in scores], own, strict=False)
    return [sorted(row) for row in result]


def expected(query: np.ndarray, among: list[int], width: int) -> list[tuple[float, int]]:
    ids, scores = best(query, among, width)
    named = zip(ids, scores, strict=True)
    return [(-score, CANDIDATES.index(candidate)) for candidate, score in named if candidate]


@examples
@given(request_=requests() | query_requests())
def test_merged_answers_equal_the_oracle(shards: list[dict[str, Any]], request_: Request) -> None:
    """With exclusions of candidates of all shards, seen candidates, histories and filters."""
    by_query = isinstance(request_, QueryRequest)
    signature = contract.RETRIEVE_BY_QUERY if by_query else contract.RETRIEVE
    answers = merged([shard[signature](**request_.inputs()) for shard in shards])
    for row in range(len(request_.users)):
        remaining = request_.remaining(row)
        wanted = expected(request_.query(row), remaining, min(request_.k, NUM_CANDIDATES))
        # A shard answers all of its candidates at most.
        assert answers[row][: request_.k] == wanted


@examples
@given(request_=query_requests())
def test_queries_are_those_of_the_whole_servable_to_the_bit(
    shards: list[dict[str, Any]], whole: dict[str, Any], request_: QueryRequest
) -> None:
    wanted = whole[contract.EMBED_BY_QUERY](**request_.query_inputs())
    for shard in shards:
        outputs = shard[contract.EMBED_BY_QUERY](**request_.query_inputs())
        for name, values in wanted.items():
            assert outputs[name].numpy().tobytes() == values.numpy().tobytes()


def test_the_other_signatures_know_the_whole_corpus(
    shards: list[dict[str, Any]], whole: dict[str, Any]
) -> None:
    users = tf.constant([*USERS, "unknown"])
    answers = merged([shard[contract.SERVING_DEFAULT](user_id=users) for shard in shards])
    for user, answer in zip(users.numpy().tolist(), answers, strict=True):
        query = embedding(user.decode())
        assert answer[:TOP_K] == expected(query, list(range(NUM_CANDIDATES)), TOP_K)
    pairs = {
        contract.USER_ID: tf.constant([*USERS[:3], "unknown"]),
        contract.CANDIDATE_ID: tf.constant([*CANDIDATES[3:6], "nothing"]),
    }
    names = tf.constant([*CANDIDATES, "nothing"])
    similar = merged([shard[contract.SIMILAR](candidate_id=names) for shard in shards])
    wanted = merged_of_one(whole[contract.SIMILAR](candidate_id=names))
    assert [row[:TOP_K] for row in similar] == wanted
    for shard in shards:
        rated, known = shard[contract.RATE](**pairs), shard[contract.SIMILAR](candidate_id=names)
        for name, values in whole[contract.RATE](**pairs).items():
            assert rated[name].numpy().tobytes() == values.numpy().tobytes()
        assert known[contract.KNOWN_CANDIDATE].numpy().tolist() == [True] * NUM_CANDIDATES + [False]


def merged_of_one(outputs: dict[str, tf.Tensor]) -> list[list[tuple[float, int]]]:
    return [
        [(-score, CANDIDATES.index(name)) for name, score in zip(*row, strict=True) if name]
        for row in zip(*rows(outputs), strict=True)
    ]


@given(count=st.integers(1, 9), size=st.integers(0, 40))
def test_shards_divide_the_positions(count: int, size: int) -> None:
    parts = [range(size)[Shard(number=n, count=count).positions] for n in range(count)]
    assert sorted(position for part in parts for position in part) == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
