"""Learning what features say about people who did nothing yet."""

import numpy as np
import pytest

from shortlist.export.data import Attribute, Context, Dataset
from shortlist.export.data.features import FeatureColumns
from shortlist.export.training.query import feature_queries
from shortlist.export.training.query.feature_queries import FeatureRows, fit_feature_queries

NUM_USERS, NUM_CANDIDATES, PER_USER = 700, 60, 10


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take larger steps, and fewer, which is enough for six dimensions."""
    monkeypatch.setattr(feature_queries, "_RATE", 0.2)
    monkeypatch.setattr(feature_queries, "_MOST_STEPS", 40)


def make(*, telling: bool) -> tuple[Dataset, np.ndarray]:
    """Users of three countries and two devices, which decide on the candidates if `telling`.

    Each country has a third of the candidates; phones have the first half of each third. Moods
    never tell anything.
    """
    random = np.random.default_rng(5)
    users = np.repeat(np.arange(NUM_USERS), PER_USER).astype(np.int32)
    countries = random.integers(0, 3, NUM_USERS)
    devices = random.integers(0, 2, len(users)).astype(np.int32)
    moods = random.integers(0, 2, len(users)).astype(np.int32)
    within = random.integers(0, 10, len(users))
    if telling:
        candidates = 20 * countries[users] + 10 * devices + within
    else:
        candidates = random.integers(0, NUM_CANDIDATES, len(users))
    names = tuple(map(str, range(NUM_CANDIDATES)))
    dataset = Dataset(
        name="travel",
        user_ids=tuple(map(str, range(NUM_USERS))),
        candidate_ids=names,
        titles=names,
        user_positions=users,
        candidate_positions=candidates.astype(np.int32),
        user_attributes={
            "country": Attribute(values=tuple((("de", "en", "nl")[c],) for c in countries))
        },
        context={
            "mood": Context(values=("dull", "fair"), codes=moods),
            "device": Context(values=("phone", "desktop"), codes=devices),
        },
    )
    groups = np.repeat(np.eye(6, dtype=np.float32), 10, axis=0)
    noise = random.normal(0, 0.1, (NUM_CANDIDATES, 6))
    return dataset, (groups + noise).astype(np.float32)


def fit(dataset: Dataset, embeddings: np.ndarray) -> tuple[FeatureColumns, np.ndarray] | None:
    part = np.arange(dataset.num_interactions)
    rows = FeatureRows.of_dataset(dataset, part, seed=1)
    return fit_feature_queries(embeddings, rows)


def useful(dataset: Dataset, embeddings: np.ndarray) -> tuple[FeatureColumns, np.ndarray]:
    found = fit(dataset, embeddings)
    assert found is not None
    return found


def best(
    columns: FeatureColumns, vectors: np.ndarray, embeddings: np.ndarray, *names: str
) -> set[int]:
    query = sum(vectors[columns.names.index(name)] for name in names)
    scores = embeddings @ query
    return set((np.argsort(-scores)[: 10 * (3 - len(names))] // 10).tolist())


def test_features_shape_the_list_alone_and_together() -> None:
    dataset, embeddings = make(telling=True)
    columns, vectors = useful(dataset, embeddings)
    assert vectors.dtype == np.float32
    assert set(columns.spans) == {"country", "device"}  # the mood tells nothing
    assert best(columns, vectors, embeddings, "country=nl") == {4, 5}
    assert best(columns, vectors, embeddings, "country=nl", "device=phone") == {4}
    assert best(columns, vectors, embeddings, "country=de", "device=desktop") == {1}


def test_few_users_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_queries, "_FEWEST_JUDGES", NUM_USERS // 5)
    assert fit(*make(telling=True)) is None


def test_features_that_tell_nothing_are_not_kept() -> None:
    assert fit(*make(telling=False)) is None


def test_same_seed_gives_the_same_vectors() -> None:
    dataset, embeddings = make(telling=True)
    first, second = (useful(dataset, embeddings)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_sample_of_a_large_corpus_competes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_queries, "_WHOLE_CORPUS", NUM_CANDIDATES - 1)
    monkeypatch.setattr(feature_queries, "_SAMPLE", 40)
    dataset, embeddings = make(telling=True)
    columns, vectors = useful(dataset, embeddings)
    assert best(columns, vectors, embeddings, "country=en", "device=phone") == {2}


def test_data_without_features_learns_nothing() -> None:
    dataset, embeddings = make(telling=True)
    plain = Dataset(
        name="plain",
        user_ids=dataset.user_ids,
        candidate_ids=dataset.candidate_ids,
        titles=dataset.titles,
        user_positions=dataset.user_positions,
        candidate_positions=dataset.candidate_positions,
    )
    assert fit(plain, embeddings) is None


def test_equal_features_are_one_set() -> None:
    dataset, _ = make(telling=True)
    part = np.arange(100, dataset.num_interactions)
    rows = FeatureRows.of_dataset(dataset, part, seed=1)
    assert rows.sets.num_rows == 12  # three countries, two devices, two moods
    assert len({tuple(rows.sets.of(row)) for row in range(12)}) == 12
    assert rows.sets.counts.tolist() == [3] * 12
    assert (np.diff(rows.owners) >= 0).all()
    # Each set has the interactions of its users and devices, and so ten of the candidates.
    for row in range(12):
        assert len(set((rows.candidates[rows.owners == row] // 10).tolist())) == 1
    # A user counts as the square root of the user's interactions.
    assert rows.weights.sum() == pytest.approx((NUM_USERS - 10) * PER_USER**0.5, rel=1e-4)


def test_users_train_or_validate() -> None:
    dataset, _ = make(telling=True)
    part = np.arange(dataset.num_interactions)
    rows = FeatureRows.of_dataset(dataset, part, seed=1)
    assert 0.05 < rows.judging.mean() < 0.15
    assert rows.judging.sum() % PER_USER == 0


def test_large_data_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_queries, "_MOST_INTERACTIONS", 500)
    monkeypatch.setattr(feature_queries, "_MOST_SETS", 3)
    dataset, _ = make(telling=True)
    part = np.arange(dataset.num_interactions)
    rows = FeatureRows.of_dataset(dataset, part, seed=1)
    assert rows.sets.num_rows == 3
    assert len(rows.owners) < 500
    assert set(rows.owners.tolist()) == {0, 1, 2}
