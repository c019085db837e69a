"""Training of the tower over the order of events: its loss, what it learns, and resuming."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import TrainConfig
from shortlist.export.data.histories import Histories
from shortlist.export.data.pairs import Pairs
from shortlist.export.progress import Progress, TrainingState
from shortlist.export.towers.order import OrderTower
from shortlist.export.training.checkpoint import Checkpoint, CheckpointConfig
from shortlist.export.training.order import order_epochs, train_order, training
from shortlist.export.training.order.training import OrderSteps
from shortlist.export.training.workers import alone

CORPUS = 40
EVENTS = 9


def walks(users: int, seed: int, *, weighted: bool = False) -> Histories:
    """Users walk on a ring of candidates, all their way forwards or all their way back."""
    random = np.random.default_rng(seed)
    steps = random.choice([-1, 1], (users, 1)) * np.arange(EVENTS)
    candidates = (random.integers(0, CORPUS, (users, 1)) + steps) % CORPUS
    weights = random.uniform(0.1, 10, candidates.size).astype(np.float32) if weighted else None
    return Histories(
        events=Pairs(
            starts=np.arange(users + 1) * EVENTS,
            columns=candidates.astype(np.int32).ravel(),
            weights=weights,
        ),
        times=np.arange(users * EVENTS) * 60,
        num_candidates=CORPUS,
    )


@pytest.fixture(scope="module")
def taste() -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(CORPUS, 16)).astype(np.float32)


def train(
    taste: npt.NDArray[np.float32], *, epochs: int = 2, seed: int = 1, **arguments: object
) -> tuple[OrderTower, npt.NDArray[np.float32]]:
    return train_order(
        walks(400, seed=1),
        taste,
        TrainConfig(seed=seed),
        dimension=128,
        epochs=epochs,
        **{"progress": Progress(), "phase": "order", **arguments},  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_direction_of_a_walk_is_learned(taste: npt.NDArray[np.float32]) -> None:
    """Both ways past the same candidates: a set of events cannot tell what comes next."""
    tower, table = train(taste, epochs=40)
    held_out = walks(200, seed=2)
    rows = held_out.events.columns.reshape(200, EVENTS)
    gaps = held_out.gaps.reshape(200, EVENTS).astype(np.int32)
    queries = tower.last(table[rows[:, :-1]], gaps[:, :-1], tf.fill([200], EVENTS - 1))
    scores = np.array(queries @ table.T)
    np.put_along_axis(scores, rows[:, :-1], -np.inf, axis=1)
    assert np.mean(scores.argmax(axis=1) == rows[:, -1]) > 0.9


def make(
    taste: npt.NDArray[np.float32], *, weighted: bool = False, **changes: object
) -> OrderSteps:
    arguments = {"dimension": 128, "epochs": 2, "seed": 1, "length": 6, "tokens": 64, **changes}
    return OrderSteps(walks(30, seed=1, weighted=weighted), taste, **arguments)  # type: ignore[arg-type]


def plain_loss(
    steps: OrderSteps,
    rows: npt.NDArray[np.int32],
    gaps: npt.NDArray[np.int32],
    counts: npt.NDArray[np.float32],
    count: int,
) -> float:
    """Loss of one row, by loops."""
    table, total = steps.table.numpy(), 0.0
    queries = steps.tower.encode(table[rows[None, :-1]], gaps[None, :-1]).numpy()[0]
    for place in range(count - 1):
        logits = table @ queries[place]
        normalizer = math.log(sum(math.exp(logit) for logit in logits))
        weights = [0.3**ahead for ahead in range(count - 1 - place)]
        for ahead, weight in enumerate(weights):
            loss = normalizer - float(logits[rows[place + 1 + ahead]])
            total += counts[place + 1] * weight / sum(weights) * loss
    return total


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_asks_at_each_event_for_those_that_follow(
    taste: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch, weighted: bool
) -> None:
    monkeypatch.setattr(training, "_DROPOUT", 0.0)
    steps = make(taste, weighted=weighted)
    batch = steps.batches.batch(0, epoch=0)
    assert len(set(batch.counts.tolist())) > 1
    rows = zip(batch.candidates, batch.gaps, batch.weights, batch.counts, strict=True)
    expected = sum(plain_loss(steps, *row) for row in rows) / np.sum(batch.counts - 1)
    loss = steps.step(np.array([0], np.int32))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_sampled_loss_comes_near_the_exact_one(
    taste: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_DROPOUT", 0.0)
    steps = make(taste)
    batch = steps.batches.batch(0, epoch=0)
    arrays = (batch.candidates, batch.gaps, batch.weights, tf.constant(len(batch.counts)))
    exact = float(steps._loss(*arrays))
    monkeypatch.setattr(training, "_NEGATIVES", 30)
    sampled, losses = make(taste), []
    for seed in range(40):
        sampled._seed = seed  # of the sample; tower and batch stay
        losses.append(float(sampled._loss(*arrays)))
    assert np.std(losses) > 0
    assert np.mean(losses) == pytest.approx(exact, rel=0.01)


def test_losses_of_workers_add_up_to_that_of_one(taste: npt.NDArray[np.float32]) -> None:
    """With the same values dropped, although each worker has only some of the rows."""
    whole = make(taste)
    batch = whole.batches.batch(0, epoch=0)
    rows = tf.constant(len(batch.counts))
    expected = whole._loss(batch.candidates, batch.gaps, batch.weights, rows)
    total = 0.0
    for index in range(2):
        workers = dataclasses.replace(alone(), index=index, count=2)
        part = slice(index, None, 2)
        arrays = (batch.candidates[part], batch.gaps[part], batch.weights[part])
        total += float(make(taste, workers=workers)._loss(*arrays, rows))
    assert total == pytest.approx(float(expected), rel=1e-5)


class Interrupting(Progress):
    """Ends a training at its nth report."""

    def __init__(self, at: int) -> None:
        self.left = at

    def batches_done(self, state: TrainingState) -> None:
        assert state.phase == "order"
        self.left -= 1
        if not self.left:
            raise InterruptedError


@pytest.mark.slow
def test_same_seed_same_result_also_if_interrupted(
    taste: npt.NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_TOKENS", 100)  # several reports per epoch
    expected = train(taste, epochs=3)
    settings = CheckpointConfig(folder=tmp_path, interval=0)
    checkpoint = Checkpoint(settings, {})
    with pytest.raises(InterruptedError):
        train(taste, epochs=3, progress=Interrupting(5), checkpoint=checkpoint)
    resumed = Checkpoint(dataclasses.replace(settings, resume=True), {})
    saved = resumed.restored()
    assert saved is not None
    assert saved.loop["epoch"] == 1
    again = train(taste, epochs=3, checkpoint=resumed, saved=saved)
    other = train(taste, epochs=3, seed=2)
    np.testing.assert_array_equal(expected[1], again[1])
    for one, two in zip(expected[0].variables, again[0].variables, strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.abs(expected[1] - other[1]).max() > 0


def test_dimension_is_that_of_the_taste_up_to_128(taste: npt.NDArray[np.float32]) -> None:
    assert make(taste).tower.dimension == 16
    wide = np.tile(taste, 10) + np.random.default_rng(1).normal(size=(CORPUS, 160))
    steps = make(wide.astype(np.float32))
    assert steps.table.shape == (CORPUS, 128)
    assert steps.table.numpy().std() == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize(
    ("events", "epochs"),
    [(0, 60), (20_000, 45), (100_000, 9), (1_000_000, 6), (25_000_000, 2), (10**9, 1)],
)
def test_much_data_get_fewer_epochs(events: int, epochs: int) -> None:
    assert order_epochs(events) == epochs
