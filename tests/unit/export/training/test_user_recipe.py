"""The default recipe on data in which the order of events tells what comes next."""

import dataclasses
import gc

import numpy as np
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.questions import held_out_questions
from shortlist.export.data.split import Split, configured_split
from shortlist.export.evaluation.judge import judge_model
from shortlist.export.progress import Progress, TrainingState
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.train import train
from shortlist.export.training.unknown_user import choose_half_life

pytestmark = pytest.mark.slow

USERS, CANDIDATES, EVENTS = 150, 60, 14
TOWERS = ModelConfig(embedding_dim=16, order_dimension=16)
TASTE = dataclasses.replace(TOWERS, order_dimension=0)  # half of the time
TRAIN = TrainConfig(epochs=12, batch_size=64, learning_rate=0.03, split="leave_last_out")


@pytest.fixture(scope="module")
def walks() -> Dataset:
    """Users walk along a circle of candidates, half of them in either direction."""
    random = np.random.default_rng(5)
    steps = np.where(np.arange(USERS) % 2, 1, -1)[:, None] * np.arange(EVENTS)
    candidates = (random.integers(0, CANDIDATES, USERS)[:, None] + steps) % CANDIDATES
    ids = tuple(f"c{number}" for number in range(CANDIDATES))
    return Dataset(
        name="walks",
        user_ids=tuple(f"u{number}" for number in range(USERS)),
        candidate_ids=ids,
        titles=ids,
        user_positions=np.repeat(np.arange(USERS, dtype=np.int32), EVENTS),
        candidate_positions=candidates.ravel().astype(np.int32),
        timestamps=np.tile(np.arange(EVENTS) * 3600, USERS),
    )


@pytest.fixture(scope="module")
def split(walks: Dataset) -> Split:
    return configured_split(walks, TRAIN)


@pytest.fixture(scope="module")
def model(walks: Dataset, split: Split) -> TrainedModel:
    """All three parts, with the weights that are used without a validation part."""
    everything = dataclasses.replace(split, training=split.fitted, validation=split.validation[:0])
    return train(walks, everything, TOWERS, TRAIN)


def test_all_parts_tell_what_comes_next(walks: Dataset, split: Split, model: TrainedModel) -> None:
    assert model.settings["order_weight"] > 0 < model.settings["linear_weight"]
    assert model.query_tower.dimension == model.candidate_embeddings.shape[1] == 16 + 16 + 60
    assert model.taste_embeddings.shape == (CANDIDATES, 16)
    metrics = judge_model(model, walks, split, ks=[1]).metrics
    assert metrics["seen_excluded"]["hit_rate@1"] > 0.8


class TasteTables(Progress):
    """Collects the names of the taste's tables that are in memory while the order is learned."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}

    def batches_done(self, state: TrainingState) -> None:
        tables = (thing for thing in gc.get_objects() if isinstance(thing, tf.Variable))
        self.names[state.phase] = {
            table.name for table in tables if table.name.startswith(("cosine_", "inner_product_"))
        }


def test_order_is_learned_without_the_tables_of_the_taste_in_memory(
    walks: Dataset, split: Split
) -> None:
    """With a million candidates they and their moments take 4 GB."""
    tables = TasteTables()
    train(walks, split, TOWERS, dataclasses.replace(TRAIN, epochs=1), progress=tables)
    assert tables.names["search"] >= {"cosine_candidates:0", "inner_product_users:0"}
    assert tables.names["search, order"] == set() == tables.names["fit, order"]


def test_validation_finds_that_late_events_count_more(walks: Dataset, split: Split) -> None:
    model = train(walks, split, TASTE, TRAIN)
    assert model.settings["decay"] < 1
    assert model.settings["user_share"] == 0
    metrics = judge_model(model, walks, split, ks=[1]).metrics
    assert metrics["seen_excluded"]["hit_rate@1"] > 0.8


def test_unknown_user_with_a_history_is_answered_like_a_known_one(
    walks: Dataset, split: Split, model: TrainedModel
) -> None:
    questions = held_out_questions(walks, split)
    known = model.embed(questions.users, questions.histories)
    unknown = model.embed(np.full(len(questions), -1), questions.histories)
    np.testing.assert_allclose(unknown, known, rtol=1e-5, atol=1e-6)
    best = (unknown @ model.candidate_embeddings.T).argmax(axis=1)
    assert len(np.unique(best)) > CANDIDATES / 2, "lists are personal"


def test_without_times_queries_come_from_the_set_of_events(walks: Dataset) -> None:
    untimed = Dataset(
        **{
            **{name: getattr(walks, name) for name in walks.__dataclass_fields__},
            "timestamps": None,
        }
    )
    config = TrainConfig(epochs=6, batch_size=64, learning_rate=0.03)
    split = configured_split(untimed, config)
    model = train(untimed, split, TOWERS, config)
    assert model.settings["order_weight"] == 0
    assert model.settings["decay"] == 1
    history = Histories.of_users(untimed, split.fitted).take(np.array([3]))
    events = history.events
    backwards = Histories(
        events=type(events)(starts=events.starts, columns=events.columns[::-1].copy()),
        num_candidates=CANDIDATES,
    )
    unknown = np.array([-1])
    np.testing.assert_allclose(
        model.embed(unknown, history), model.embed(unknown, backwards), rtol=1e-4, atol=1e-5
    )


def test_popularity_of_late_is_found_where_tastes_change() -> None:
    """All users like one candidate in the first year and another in the second."""
    days, old, new = np.arange(600), 3, 4
    candidates = np.where(days < 500, old, new).astype(np.int32)
    training = Histories(
        events=Pairs.by_row(np.zeros(600, np.int64), candidates, num_rows=1),
        times=days * 86_400,
        num_candidates=5,
    )
    assert choose_half_life(training, np.full(20, new)) == 7
    assert choose_half_life(training, np.array([old] * 5 + [new])) is None


def test_equal_weights_are_no_weights(walks: Dataset, split: Split) -> None:
    """Bit by bit, so that a column of ones changes nothing."""
    config = dataclasses.replace(TRAIN, epochs=2)
    weights = np.full(walks.num_interactions, 4, np.float32)
    weighted = dataclasses.replace(walks, weights=weights)
    one, other = (train(data, split, TASTE, config) for data in (walks, weighted))
    assert one.settings == other.settings
    assert one.records == other.records
    np.testing.assert_array_equal(one.candidate_embeddings, other.candidate_embeddings)
    for data in (walks, weighted):
        np.testing.assert_array_equal(Histories.of_users(data, split.fitted).relative_weights, 1)


def test_events_of_a_larger_weight_decide_what_a_user_gets(walks: Dataset) -> None:
    """Users look at candidates of anybody's taste, and buy those of their own half."""
    random = np.random.default_rng(2)
    bought = random.random(walks.num_interactions) < 0.2
    own = walks.user_positions % 2 * (CANDIDATES // 2)
    candidates = np.where(
        bought,
        own + random.integers(0, CANDIDATES // 2, len(bought)),
        random.integers(0, CANDIDATES, len(bought)),
    )
    data = dataclasses.replace(walks, candidate_positions=candidates.astype(np.int32))
    train_config = dataclasses.replace(TRAIN, split="random")
    split = configured_split(data, train_config)
    shares = []
    for weights in (None, np.where(bought, 20, 1).astype(np.float32)):
        weighted = dataclasses.replace(data, weights=weights)
        model = train(weighted, split, TASTE, train_config)
        queries = model.embed_users(np.arange(USERS))
        best = np.argsort(-queries @ model.candidate_embeddings.T, axis=1)[:, :10]
        shares.append(np.mean(best // (CANDIDATES // 2) == np.arange(USERS)[:, None] % 2))
    assert shares[1] > shares[0] + 0.05
