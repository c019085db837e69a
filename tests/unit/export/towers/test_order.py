"""The tower over the order of events: one query per position, or the last one alone."""

from pathlib import Path

import numpy as np
import pytest

from shortlist.export._tf import tf
from shortlist.export.servable.target import check_target
from shortlist.export.towers.order import OrderTower


@pytest.fixture(scope="module")
def tower() -> OrderTower:
    random = tf.random.Generator.from_seed(3)
    tower = OrderTower(8, 12, random)
    for variable in tower.trainable_variables:  # those that start at zero must count
        variable.assign_add(random.normal(variable.shape, stddev=0.3))
    return tower


def events(rows: int, width: int, seed: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows, width, 8)).astype(np.float32)
    return tf.constant(inputs), tf.constant(random.integers(0, 32, (rows, width)), tf.int32)


def test_last_query_is_that_of_all_positions(tower: OrderTower) -> None:
    inputs, gaps = events(5, 12)
    counts = tf.constant([12, 1, 7, 2, 11])
    every = tower.encode(inputs, gaps)
    last = tower.last(inputs, gaps, counts)
    np.testing.assert_allclose(tf.gather(every, counts - 1, batch_dims=1), last, atol=1e-5)


def test_queries_know_no_later_event_and_no_padding(tower: OrderTower) -> None:
    inputs, gaps = events(2, 9)
    others, other_gaps = events(2, 9, seed=2)
    changed = tf.concat([inputs[:, :5], others[:, 5:]], axis=1)
    changed_gaps = tf.concat([gaps[:, :5], other_gaps[:, 5:]], axis=1)
    before, after = tower.encode(inputs, gaps), tower.encode(changed, changed_gaps)
    np.testing.assert_allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert np.abs(before[:, 5:] - after[:, 5:]).min(axis=(1, 2)).max() > 0
    counts = tf.constant([5, 5])
    padded, short = (
        tower.last(changed, changed_gaps, counts),
        tower.last(inputs[:, :5], gaps[:, :5], counts),
    )
    np.testing.assert_allclose(padded, short, atol=1e-5)


def test_order_and_gaps_count_but_not_the_gap_of_the_first_event(tower: OrderTower) -> None:
    inputs, gaps = events(1, 4)
    counts = tf.constant([4])
    query = tower.last(inputs, gaps, counts).numpy()
    turned = tower.last(tf.gather(inputs, [1, 0, 2, 3], axis=1), gaps, counts).numpy()
    assert np.abs(query - turned).max() > 1e-2
    later, first = gaps + tf.constant([0, 1, 0, 0]), gaps + tf.constant([1, 0, 0, 0])
    assert np.abs(query - tower.last(inputs, later, counts).numpy()).max() > 1e-2
    np.testing.assert_array_equal(query, tower.last(inputs, first, counts))


@pytest.mark.parametrize("width", [0, 3])
def test_no_events_give_zeros(tower: OrderTower, width: int) -> None:
    query = tower.last(*events(2, width), tf.constant([0, 0]))
    np.testing.assert_array_equal(query, np.zeros([2, 8]))


def test_stock_server_has_the_ops(tower: OrderTower) -> None:
    inputs, gaps = events(1, 2)
    function = tf.function(tower.last, autograph=False)
    graph = function.get_concrete_function(inputs, gaps, tf.constant([2])).graph
    check_target("stock-2.20", "tower", {op.type for op in graph.get_operations()})


def test_saved_tower_takes_all_lengths_without_retracing(tower: OrderTower, tmp_path: Path) -> None:
    signature = [
        tf.TensorSpec([None, None, 8], tf.float32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None], tf.int32),
    ]
    module = tf.Module()
    module.tower = tower
    module.last = tf.function(tower.last, input_signature=signature, autograph=False)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    traces = []
    for width in (1, 5, 12):
        inputs, gaps = events(3, width)
        counts = tf.constant([width, 1, width])
        expected = tower.last(inputs, gaps, counts)
        np.testing.assert_allclose(loaded.last(inputs, gaps, counts), expected, atol=1e-6)
        np.testing.assert_allclose(module.last(inputs, gaps, counts), expected, atol=1e-6)
        traces.append(module.last.experimental_get_tracing_count())
    assert traces[0] == traces[-1]
