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
SEEN = [set(_rng.choice(NUM_CANDIDATES, 5 * i, replace=False)) for i in range(NUM_USERS)]
CANDIDATE_GENRES = [
    tuple(genre for genre in GENRES[:3] if _rng.random() < 0.4) for _ in range(NUM_CANDIDATES)
]
YEARS = np.where(
    _rng.random(NUM_CANDIDATES) < 0.1, np.nan, _rng.integers(1990, 2000, NUM_CANDIDATES)
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
    similar_queries: np.ndarray | None = None,
) -> dict[str, Any]:
    users = np.repeat(np.arange(NUM_USERS), [len(seen) for seen in SEEN])
    seen = np.array([c for user in SEEN for c in sorted(user)])
    kept = Histories(
        # Twice, as in data in which users come back.
        events=Pairs.by_row(
            np.concatenate([users, users]), np.concatenate([seen, seen]), num_rows=NUM_USERS
        ),
        num_candidates=NUM_CANDIDATES,
    )
    return RetrievalServable(
        query_tower=QueryTower(  # unknown users get zeros
            USERS,
            known=np.ones(NUM_USERS, np.bool_),
            popular=np.zeros(DIMENSION, np.float32),
            num_candidates=NUM_CANDIDATES,
            kept=kept if keep_seen else None,
            users=QUERY_EMBEDDINGS,
        ),
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
        width = max(map(len, self.exclude), default=0)
        exclude = [[*row, *[""] * (width - len(row))] for row in self.exclude]
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
            contract.EXCLUDE: tf.reshape(tf.constant(exclude, tf.string), [len(self.users), width]),
            contract.EXCLUDE_SEEN: tf.constant(self.exclude_seen),
        }

    def remaining(self, row: int) -> list[int]:
        """Return the positions that the request leaves to one of its users."""
        user = self.users[row]
        seen = SEEN[USERS.index(user)] if self.exclude_seen and user in USERS else set()
        return [
            c
            for c in range(NUM_CANDIDATES)
            if c not in seen and CANDIDATES[c] not in self.exclude[row] and self._allows(c)
        ]

    def _allows(self, candidate: int) -> bool:
        has = {f"genre={genre}" for genre in CANDIDATE_GENRES[candidate]}
        any_of = [term for term in self.filter_any if term]
        return (
            (not any_of or bool(has & set(any_of)))
            and has >= {term for term in self.filter_all if term}
            and all(YEARS[candidate] >= _number(term) for term in self.filter_min if term)
            and all(YEARS[candidate] <= _number(term) for term in self.filter_max if term)
        )


def _number(term: str) -> float:
    return float(term.removeprefix("year="))


def embedding(user: str) -> np.ndarray:
    return QUERY_EMBEDDINGS[USERS.index(user)] if user in USERS else np.zeros(DIMENSION, "f4")


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


examples = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@examples
@given(request_=requests())
def test_retrieve_equals_the_oracle(exact: dict[str, Any], request_: Request) -> None:
    outputs = exact[contract.RETRIEVE](**request_.inputs())
    width = min(request_.k, NUM_CANDIDATES)
    assert outputs[contract.SCORES].shape == (len(request_.users), width)
    ids, scores = rows(outputs)
    for row, user in enumerate(request_.users):
        expected = best(embedding(user), request_.remaining(row), width)
        assert (ids[row], scores[row]) == expected
    assert outputs[contract.KNOWN_USER].numpy().tolist() == [u in USERS for u in request_.users]
    assert outputs[contract.SERVABLE_VERSION].numpy().tolist() == [VERSION] * len(request_.users)


@examples
@given(request_=requests())
def test_approximate_retrieve_is_never_short_or_wrong(
    approximate: dict[str, Any], request_: Request
) -> None:
    """The answers are approximate, but the restrictions are exact."""
    ids, scores = rows(approximate[contract.RETRIEVE](**request_.inputs()))
    for row, user in enumerate(request_.users):
        remaining = {CANDIDATES[c] for c in request_.remaining(row)}
        answers = [candidate for candidate in ids[row] if candidate]
        count = len(answers)
        assert count == len(set(answers)) == min(request_.k, len(remaining))
        assert set(answers) <= remaining
        positions = [CANDIDATES.index(candidate) for candidate in answers]
        own = CANDIDATE_EMBEDDINGS[positions] @ embedding(user)
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
