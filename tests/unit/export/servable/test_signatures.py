"""Every signature of every index answers as one NumPy oracle does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import BruteForceConfig, IndexConfig, IvfConfig, ScannConfig
from shortlist.export.data.dataset import Attribute
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.index import ivf, restricted
from shortlist.export.index.build import build_index
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.towers.pooled import PooledPart
from shortlist.export.towers.query_tower import QueryTower
from shortlist.export.towers.rating_head import LinearRatingHead
from shortlist.export.towers.rating_means import RatingMeans

NUM_USERS, NUM_CANDIDATES, DIMENSION = 12, 90, 4
TOP_K = 15
VERSION = 7
GENRES = ("Comedy", "Drama", "Horror", "Silent")

USERS = [f"u{i}" for i in range(NUM_USERS)]
CANDIDATES = [f"c{i}" for i in range(NUM_CANDIDATES)]

# Small whole numbers: their products are exact, and many scores are equal.
_rng = np.random.default_rng(17)
QUERY_EMBEDDINGS = _rng.integers(-2, 3, (NUM_USERS, DIMENSION)).astype(np.float32)
CANDIDATE_EMBEDDINGS = _rng.integers(-2, 3, (NUM_CANDIDATES, DIMENSION)).astype(np.float32)
SEEN = [_rng.choice(NUM_CANDIDATES, 5 * i).tolist() for i in range(NUM_USERS)]  # some repeatedly
POPULAR = np.arange(DIMENSION, dtype=np.float32)  # query for whom nothing is known
CANDIDATE_GENRES = [
    tuple(genre for genre in GENRES[:3] if _rng.random() < 0.4) for _ in range(NUM_CANDIDATES)
]
YEARS = np.where(
    _rng.random(NUM_CANDIDATES) < 0.1, np.nan, _rng.integers(1990, 2000, NUM_CANDIDATES)
)


def query_tower(*, keep: bool) -> QueryTower:
    """Return a tower whose queries are whole numbers: that of the user and those of the events."""
    owners = np.repeat(np.arange(NUM_USERS), [len(events) for events in SEEN])
    columns = np.array([event for events in SEEN for event in events], np.int32)
    kept = Histories(
        events=Pairs.by_row(owners, columns, num_rows=NUM_USERS), num_candidates=NUM_CANDIDATES
    )
    return QueryTower(
        USERS,
        known=np.ones(NUM_USERS, np.bool_),
        popular=POPULAR,
        num_candidates=NUM_CANDIDATES,
        parts=[
            PooledPart(
                slice(0, DIMENSION),
                np.ones(DIMENSION, np.float32),
                decay=1.0,
                normalized=False,
            )
        ],
        kept=kept if keep else None,
        users=QUERY_EMBEDDINGS,
    )


TASTES = _rng.integers(-1, 2, (NUM_USERS, DIMENSION)).astype(np.float64)
MEANS = RatingMeans(
    mean=3.0,
    user_bias=_rng.integers(-4, 5, NUM_USERS) / 8,
    candidate_bias=_rng.integers(-4, 5, NUM_CANDIDATES) / 8,
    lowest=1.0,
    highest=5.0,
    strengths=(0.0, 0.0),
)


def servable(
    index: str,
    config: IndexConfig,
    *,
    keep_seen: bool = True,
    rates: bool = True,
    taste_dimension: int | None = None,
    similar_queries: np.ndarray | None = None,
) -> dict[str, Any]:
    return RetrievalServable(
        query_tower=query_tower(keep=keep_seen),
        index=build_index(index, CANDIDATE_EMBEDDINGS, CANDIDATES, config),
        candidate_ids=CANDIDATES,
        candidate_filter=CandidateFilter(
            {
                "genre": Attribute(values=tuple(CANDIDATE_GENRES)),
                "year": Attribute(numbers=YEARS),
            },
            NUM_CANDIDATES,
        ),
        version=VERSION,
        top_k=TOP_K,
        rating_head=LinearRatingHead(MEANS, TASTES) if rates else None,
        taste_dimension=taste_dimension,
        similar_queries=similar_queries,
    ).signatures()


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


@dataclass(frozen=True, kw_only=True)
class Request:
    users: list[str]
    k: int = 10
    exclude: list[list[str]] = field(default_factory=list)
    exclude_seen: bool = False
    filter_any: list[str] = field(default_factory=list)
    filter_all: list[str] = field(default_factory=list)
    filter_min: list[str] = field(default_factory=list)
    filter_max: list[str] = field(default_factory=list)

    def inputs(self) -> dict[str, tf.Tensor]:
        strings = {
            contract.USER_ID: self.users,
            contract.FILTER_ANY: self.filter_any,
            contract.FILTER_ALL: self.filter_all,
            contract.FILTER_MIN: self.filter_min,
            contract.FILTER_MAX: self.filter_max,
        }
        return {
            **{name: tf.constant(values, tf.string) for name, values in strings.items()},
            contract.K: tf.constant(self.k),
            contract.EXCLUDE: padded(self.exclude, ""),
            contract.EXCLUDE_SEEN: tf.constant(self.exclude_seen),
        }

    def query(self, row: int) -> np.ndarray:
        """Return the expected query of one of its users."""
        return embedding(self.users[row])

    def excluded(self, row: int) -> set[str]:
        """Return the candidate ids that the request excludes for one of its users."""
        user = self.users[row]
        seen = SEEN[USERS.index(user)] if self.exclude_seen and user in USERS else []
        return {*self.exclude[row], *(CANDIDATES[c] for c in seen)}

    def remaining(self, row: int) -> list[int]:
        """Return the positions that the request leaves to one of its users."""
        gone = self.excluded(row)
        return [c for c in range(NUM_CANDIDATES) if CANDIDATES[c] not in gone and self._allows(c)]

    def _allows(self, candidate: int) -> bool:
        has = {f"genre={genre}" for genre in CANDIDATE_GENRES[candidate]}
        any_of = [term for term in self.filter_any if term]
        return (
            (not any_of or bool(has & set(any_of)))
            and has >= {term for term in self.filter_all if term}
            and all(YEARS[candidate] >= _number(term) for term in self.filter_min if term)
            and all(YEARS[candidate] <= _number(term) for term in self.filter_max if term)
        )


@dataclass(frozen=True, kw_only=True)
class QueryRequest(Request):
    """With a history for each user; without weights all events have weight 1."""

    history: list[list[str]]
    weights: list[list[float]] | None = None
    exclude_history: bool = False

    def query_inputs(self) -> dict[str, tf.Tensor]:
        width = max(map(len, self.history), default=0)
        weights = tf.zeros([len(self.users), 0])
        if self.weights is not None:
            weights = tf.reshape(padded(self.weights, 0.0), [len(self.users), width])
        return {
            contract.USER_ID: tf.constant(self.users, tf.string),
            contract.HISTORY: padded(self.history, ""),
            contract.HISTORY_AGE: tf.zeros([len(self.users), 0]),
            contract.HISTORY_WEIGHT: weights,
            contract.FEATURES: tf.fill([len(self.users), 1], ""),
        }

    def inputs(self) -> dict[str, tf.Tensor]:
        exclude_history = tf.constant(self.exclude_history)
        return {
            **super().inputs(),
            **self.query_inputs(),
            contract.EXCLUDE_HISTORY: exclude_history,
        }

    def known(self, row: int) -> int:
        return sum(event in CANDIDATES for event in self.history[row])

    def query(self, row: int) -> np.ndarray:
        if not self.known(row):
            return embedding(self.users[row])
        query = embedding(self.users[row]) if self.users[row] in USERS else np.zeros(DIMENSION)
        weights = [1.0] * len(self.history[row]) if self.weights is None else self.weights[row]
        for event, weight in zip(self.history[row], weights, strict=True):
            if event in CANDIDATES:
                query = query + weight * CANDIDATE_EMBEDDINGS[CANDIDATES.index(event)]
        return query.astype(np.float32)

    def excluded(self, row: int) -> set[str]:
        return super().excluded(row) | (set(self.history[row]) if self.exclude_history else set())


def padded(rows: list[list[Any]], padding: Any) -> tf.Tensor:
    """Return a matrix of rows of the same length."""
    width = max(map(len, rows), default=0)
    flat = [value for row in rows for value in [*row, *[padding] * (width - len(row))]]
    dtype = tf.string if padding == "" else tf.float32
    return tf.reshape(tf.constant(flat, dtype), [len(rows), width])


def _number(term: str) -> float:
    return float(term.removeprefix("year="))


def embedding(user: str) -> np.ndarray:
    """Return the query of a user by id alone."""
    if user not in USERS:
        return POPULAR
    position = USERS.index(user)
    return QUERY_EMBEDDINGS[position] + CANDIDATE_EMBEDDINGS[SEEN[position]].sum(axis=0)


def best(query: np.ndarray, remaining: Sequence[int], width: int) -> tuple[list[str], list[float]]:
    """Return the expected row: best first, equal scores by position, padded."""
    scores = CANDIDATE_EMBEDDINGS @ query
    order = sorted(remaining, key=lambda c: (-scores[c], c))[:width]
    padding = width - len(order)
    return (
        [CANDIDATES[c] for c in order] + [""] * padding,
        [float(scores[c]) for c in order] + [-np.inf] * padding,
    )


def rows(outputs: dict[str, tf.Tensor]) -> tuple[list[list[str]], list[list[float]]]:
    ids = [[i.decode() for i in row] for row in outputs[contract.CANDIDATE_IDS].numpy()]
    return ids, outputs[contract.SCORES].numpy().tolist()


years = st.integers(1988, 2001).map(lambda year: f"year={year}")
genres = st.sampled_from([f"genre={genre}" for genre in GENRES] + [""])
candidates = st.sampled_from([*CANDIDATES, "nothing", ""])


@st.composite
def requests(draw: st.DrawFn) -> Request:
    users = draw(st.lists(st.sampled_from([*USERS, "unknown", ""]), max_size=4))
    return Request(
        users=users,
        k=draw(st.integers(1, NUM_CANDIDATES + 10)),
        exclude=[draw(st.lists(candidates, max_size=20)) for _ in users],
        exclude_seen=draw(st.booleans()),
        filter_any=draw(st.lists(genres, max_size=3)),
        filter_all=draw(st.lists(genres, max_size=2)),
        filter_min=draw(st.lists(years, max_size=2)),
        filter_max=draw(st.lists(years, max_size=2)),
    )


@st.composite
def query_requests(draw: st.DrawFn) -> QueryRequest:
    request = draw(requests())
    history = [draw(st.lists(candidates, max_size=8)) for _ in request.users]
    weights = [draw(st.lists(st.integers(1, 3), min_size=8, max_size=8)) for _ in request.users]
    weighted = [
        [float(weight) for _, weight in zip(events, row, strict=False)]
        for events, row in zip(history, weights, strict=True)
    ]
    return QueryRequest(
        **vars(request),
        history=history,
        weights=draw(st.sampled_from([None, weighted])),
        exclude_history=draw(st.booleans()),
    )


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
    for name in (contract.KNOWN_USER, contract.KNOWN_HISTORY, contract.SERVABLE_VERSION):
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
