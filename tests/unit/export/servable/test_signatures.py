"""Every signature of every index answers as one NumPy oracle does."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig, ScannConfig
from shortlist.export.index import ivf, restricted
from tests.support.retrieval_oracle import (
    CANDIDATE_EMBEDDINGS,
    CANDIDATES,
    MEANS,
    NUM_CANDIDATES,
    TASTES,
    TOP_K,
    USERS,
    VERSION,
    QueryRequest,
    Request,
    best,
    embedding,
    query_requests,
    requests,
    rows,
    servable,
)

EXACT: dict[str, tuple[str, IndexConfig, int]] = {
    "brute_force": ("brute_force", BruteForceConfig(), 20_000),
    "brute_force masked": ("brute_force", BruteForceConfig(), 0),
    "scann": ("scann", ScannConfig(), 20_000),
    "scann all leaves": ("scann", ScannConfig(num_leaves=9, num_leaves_to_search=9), 0),
    "ivf all leaves": ("ivf", IvfConfig(num_leaves=9, num_leaves_to_search=9), 20_000),
    "ivf all leaves probed": ("ivf", IvfConfig(num_leaves=8, num_leaves_to_search=8), 0),
}
APPROXIMATE: dict[str, tuple[str, IndexConfig, int]] = {
    "scann": ("scann", ScannConfig(num_leaves=9, num_leaves_to_search=1), 20_000),
    "scann probed": ("scann", ScannConfig(num_leaves=9, num_leaves_to_search=1), 0),
    "ivf": ("ivf", IvfConfig(num_leaves=9, num_leaves_to_search=1), 20_000),
    "ivf probed": ("ivf", IvfConfig(num_leaves=8, num_leaves_to_search=1), 0),
    "ivf prefiltered": (
        "ivf",
        IvfConfig(
            num_leaves=9,
            num_leaves_to_search=2,
            prefilter_dimensions=2,
            num_reordering_candidates=5,
            row_type="bfloat16",
        ),
        0,
    ),
    "ivf int8": ("ivf", IvfConfig(num_leaves=9, num_leaves_to_search=2, row_type="int8"), 0),
}


def traced(index: str, config: IndexConfig, score_all_up_to: int) -> dict[str, Any]:
    """Trace signatures that score up to `score_all_up_to` remaining candidates each.

    More than 8 leaves of ivf form groups of 3, of which as few as possible are searched.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restricted, "_SCORE_ALL_UP_TO", score_all_up_to)
        for name, value in (("FROM", 8), ("AT_LEAST", 0), ("PER_ROOT", 0.0)):
            patch.setattr(ivf, f"_GROUPS_{name}", value)
        patch.setattr(ivf, "_GROUP_SIZE", 3)
        patch.setattr(ivf, "_LEAVES_RANKED", 1)
        return servable(index, config)


def cases(names: Iterable[str], *, fast: set[str]) -> list[Any]:
    return [pytest.param(n, marks=[] if n in fast else [pytest.mark.slow]) for n in names]


@pytest.fixture(scope="module", params=cases(EXACT, fast={"brute_force", "ivf all leaves"}))
def exact(request: pytest.FixtureRequest) -> dict[str, Any]:
    return traced(*EXACT[request.param])


@pytest.fixture(scope="module", params=cases(APPROXIMATE, fast={"scann"}))
def approximate(request: pytest.FixtureRequest) -> dict[str, Any]:
    return traced(*APPROXIMATE[request.param])


examples = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@examples
@given(request_=requests())
def test_retrieve_equals_the_oracle(exact: dict[str, Any], request_: Request) -> None:
    check_retrieved(exact[contract.RETRIEVE](**request_.inputs()), request_)


@examples
@given(request_=query_requests())
def test_retrieve_by_query_equals_the_oracle(exact: dict[str, Any], request_: QueryRequest) -> None:
    """Each batch mixes known and unknown users, with and without histories."""
    outputs = exact[contract.RETRIEVE_BY_QUERY](**request_.inputs())
    check_retrieved(outputs, request_)
    known = [request_.known(row) for row in range(len(request_.users))]
    assert outputs[contract.KNOWN_HISTORY].numpy().tolist() == known
    embedded = exact[contract.EMBED_BY_QUERY](**request_.query_inputs())
    queries = [request_.query(row).tolist() for row in range(len(request_.users))]
    assert embedded[contract.QUERY_EMBEDDING].numpy().tolist() == queries
    flags = (contract.KNOWN_USER, contract.KNOWN_HISTORY, contract.KNOWN_FEATURES)
    for name in (*flags, contract.SERVABLE_VERSION):
        assert embedded[name].numpy().tolist() == outputs[name].numpy().tolist()


def check_retrieved(outputs: dict[str, tf.Tensor], request_: Request) -> None:
    width = min(request_.k, NUM_CANDIDATES)
    assert outputs[contract.SCORES].shape == (len(request_.users), width)
    ids, scores = rows(outputs)
    for row in range(len(request_.users)):
        expected = best(request_.query(row), request_.remaining(row), width)
        assert (ids[row], scores[row]) == expected
    assert outputs[contract.KNOWN_USER].numpy().tolist() == [u in USERS for u in request_.users]
    assert outputs[contract.SERVABLE_VERSION].numpy().tolist() == [VERSION] * len(request_.users)


@examples
@given(request_=requests() | query_requests())
def test_approximate_retrieve_is_never_short_or_wrong(
    approximate: dict[str, Any], request_: Request
) -> None:
    """The answers are approximate, but the restrictions are exact."""
    signature = (
        contract.RETRIEVE_BY_QUERY if isinstance(request_, QueryRequest) else contract.RETRIEVE
    )
    ids, scores = rows(approximate[signature](**request_.inputs()))
    for row in range(len(request_.users)):
        remaining = {CANDIDATES[c] for c in request_.remaining(row)}
        answers = [candidate for candidate in ids[row] if candidate]
        count = len(answers)
        assert count == len(set(answers)) == min(request_.k, len(remaining))
        assert set(answers) <= remaining
        positions = [CANDIDATES.index(candidate) for candidate in answers]
        own = CANDIDATE_EMBEDDINGS[positions] @ request_.query(row)
        assert scores[row][:count] == own.tolist() == sorted(own, reverse=True)
        assert ids[row][count:] == [""] * (len(ids[row]) - count)
        assert np.isneginf(scores[row][count:]).all()


@examples
@given(users=st.lists(st.sampled_from([*USERS, "unknown"]), max_size=5))
def test_other_signatures_equal_the_oracle(exact: dict[str, Any], users: list[str]) -> None:
    user_id = tf.constant(users, tf.string)
    everything = range(NUM_CANDIDATES)
    expected = [best(embedding(user), everything, TOP_K) for user in users]
    embedded = exact[contract.EMBED](user_id=user_id)
    for outputs in (
        exact[contract.SERVING_DEFAULT](user_id=user_id),
        exact[contract.RETRIEVE_BY_EMBEDDING](query_embedding=embedded[contract.QUERY_EMBEDDING]),
    ):
        assert list(zip(*rows(outputs), strict=True)) == expected
        assert outputs[contract.SERVABLE_VERSION].numpy().tolist() == [VERSION] * len(users)
    assert embedded[contract.KNOWN_USER].numpy().tolist() == [user in USERS for user in users]


@examples
@given(names=st.lists(st.sampled_from([*CANDIDATES, "nothing"]), max_size=5))
def test_similar_equals_the_oracle(exact: dict[str, Any], names: list[str]) -> None:
    outputs = exact[contract.SIMILAR](candidate_id=tf.constant(names, tf.string))
    known = [name in CANDIDATES for name in names]
    assert outputs[contract.KNOWN_CANDIDATE].numpy().tolist() == known
    for name, ids, scores in zip(names, *rows(outputs), strict=True):
        own = CANDIDATES.index(name) if name in CANDIDATES else 0
        others = [c for c in range(NUM_CANDIDATES) if c != own] if name in CANDIDATES else []
        assert (ids, scores) == best(CANDIDATE_EMBEDDINGS[own], others, TOP_K)


def test_similar_uses_its_own_queries_if_there_are_any() -> None:
    queries = np.roll(CANDIDATE_EMBEDDINGS, 1, axis=0)
    similar = servable("brute_force", BruteForceConfig(), similar_queries=queries)[contract.SIMILAR]
    outputs = similar(candidate_id=tf.constant(["c7", "nothing", "c0"]))
    for own, ids, scores in zip((7, None, 0), *rows(outputs), strict=True):
        others = [c for c in range(NUM_CANDIDATES) if c != own] if own is not None else []
        assert (ids, scores) == best(queries[own or 0], others, TOP_K)


def test_similar_compares_tastes_alone() -> None:
    similar = servable("brute_force", BruteForceConfig(), taste_dimension=2)[contract.SIMILAR]
    outputs = similar(candidate_id=tf.constant(["c7"]))
    query = CANDIDATE_EMBEDDINGS[7] * [1, 1, 0, 0]
    others = [c for c in range(NUM_CANDIDATES) if c != 7]
    assert list(zip(*rows(outputs), strict=True)) == [best(query, others, TOP_K)]


@examples
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from([*USERS, "unknown", ""]),
            st.sampled_from([*CANDIDATES, "nothing", ""]),
        ),
        max_size=5,
    )
)
def test_rate_equals_the_oracle(exact: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
    outputs = exact[contract.RATE](
        user_id=tf.constant([user for user, _ in pairs], tf.string),
        candidate_id=tf.constant([candidate for _, candidate in pairs], tf.string),
    )
    expected = []
    for user, candidate in pairs:
        rating = MEANS.mean
        if user in USERS:
            rating += MEANS.user_bias[USERS.index(user)]
        if candidate in CANDIDATES:
            rating += MEANS.candidate_bias[CANDIDATES.index(candidate)]
        if user in USERS and candidate in CANDIDATES:
            own = CANDIDATE_EMBEDDINGS[CANDIDATES.index(candidate)]
            rating += TASTES[USERS.index(user)] @ own
        expected.append(min(max(float(rating), 1.0), 5.0))
    assert outputs[contract.RATING].numpy().tolist() == expected
    assert outputs[contract.KNOWN_USER].numpy().tolist() == [user in USERS for user, _ in pairs]
    known = [candidate in CANDIDATES for _, candidate in pairs]
    assert outputs[contract.KNOWN_CANDIDATE].numpy().tolist() == known
    assert outputs[contract.SERVABLE_VERSION].numpy().tolist() == [VERSION] * len(pairs)


def test_rate_needs_one_candidate_per_user(exact: dict[str, Any]) -> None:
    """TensorFlow would broadcast one user to any number of candidates."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="one candidate_id per user_id"):
        exact[contract.RATE](user_id=tf.constant(["u1"]), candidate_id=tf.constant(["c1", "c2"]))


@pytest.fixture(scope="module")
def brute_force() -> dict[str, Any]:
    return servable("brute_force", BruteForceConfig(), keep_seen=False, rates=False)


def test_there_is_no_rate_without_a_rating_head(brute_force: dict[str, Any]) -> None:
    assert contract.RATE not in brute_force


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"exclude_seen": True}, "stores no seen candidates"),
        ({"filter_any": ["year=1990"]}, "one of the categorical attributes: genre"),
        ({"filter_all": ["genre"]}, "must be attribute=value"),
        ({"filter_min": ["genre=Drama"]}, "one of the numeric attributes: year"),
        ({"filter_max": ["year=soon"]}, "soon"),
    ],
)
def test_impossible_request_is_an_invalid_argument(
    brute_force: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    request = Request(users=["u1"], exclude=[[]], **change)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        brute_force[contract.RETRIEVE](**request.inputs())


def test_exclude_must_have_a_row_per_user(brute_force: dict[str, Any]) -> None:
    inputs = Request(users=["u1", "u2"], exclude=[[], []]).inputs()
    inputs[contract.EXCLUDE] = tf.constant([["c1"]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="one row per user_id"):
        brute_force[contract.RETRIEVE](**inputs)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (contract.HISTORY, [["c1"]], "history must have one row per user_id"),
        (contract.HISTORY_AGE, [[1.0]], "history_age must have one row per user_id"),
        (contract.HISTORY_AGE, [[1.0]] * 2, "history_age must be as wide as history, or have"),
        (contract.HISTORY_AGE, [[1e11, -1.0]] * 2, "history_age must be at most 1e.10 seconds"),
        (contract.HISTORY_AGE, [[np.nan, -1.0]] * 2, "history_age must be at most 1e.10 seconds"),
        (contract.HISTORY_WEIGHT, [[1.0] * 3] * 2, "history_weight must be as wide as history"),
        (contract.HISTORY_WEIGHT, [[-1.0, 1.0]] * 2, "history_weight must be in 1e-06 to 1e.06"),
        (contract.HISTORY_WEIGHT, [[1e7, 1.0]] * 2, "history_weight must be in 1e-06 to 1e.06"),
        (contract.HISTORY_WEIGHT, [[np.nan, 1.0]] * 2, "history_weight must be in 1e-06 to 1e.06"),
        (contract.FEATURES, [["a=b"]], "features must have one row per user_id"),
    ],
)
def test_an_impossible_history_is_an_invalid_argument(
    brute_force: dict[str, Any], name: str, value: Any, message: str
) -> None:
    request = QueryRequest(users=["u1", ""], exclude=[[], []], history=[["c1", "c2"], ["c3"]])
    dtype = tf.string if name in (contract.HISTORY, contract.FEATURES) else tf.float32
    changed = {name: tf.constant(value, dtype)}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        brute_force[contract.RETRIEVE_BY_QUERY](**{**request.inputs(), **changed})
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        brute_force[contract.EMBED_BY_QUERY](**{**request.query_inputs(), **changed})


@pytest.mark.parametrize("width", [0, 3])
def test_without_events_the_answers_are_those_of_the_user_ids(
    brute_force: dict[str, Any], width: int
) -> None:
    users = ["u1", "", "unknown", "u7"]
    request = QueryRequest(
        users=users, exclude=[["c3"]] * 4, history=[[""] * width] * 4, exclude_history=True
    )
    by_query = brute_force[contract.RETRIEVE_BY_QUERY](**request.inputs())
    by_user = brute_force[contract.RETRIEVE](**Request.inputs(request))
    for name, value in by_user.items():
        assert value.numpy().tolist() == by_query[name].numpy().tolist(), name
    assert by_query[contract.KNOWN_HISTORY].numpy().tolist() == [0] * 4
    assert by_query[contract.KNOWN_FEATURES].numpy().tolist() == [0] * 4
