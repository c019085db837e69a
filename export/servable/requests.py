"""Reads the history and features of a request, and refuses what no client may send."""

from typing import Any

import numpy as np

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.towers.events import Request
from shortlist.export.towers.ids import IdLookup

__all__ = ["QUERY_INPUTS", "REQUEST", "check_equal", "check_rows", "example_query", "read_request"]

# What the signatures by query take besides user ids.
QUERY_INPUTS = (
    tf.TensorSpec([None, None], tf.string, name=contract.HISTORY),
    tf.TensorSpec([None, None], tf.float32, name=contract.HISTORY_AGE),
    tf.TensorSpec([None, None], tf.float32, name=contract.HISTORY_WEIGHT),
    tf.TensorSpec([None, None], tf.string, name=contract.FEATURES),
)

# What `read_request` makes of them.
REQUEST = Request(
    positions=tf.TensorSpec([None, None], tf.int32),
    ages=tf.TensorSpec([None, None], tf.float32),
    weights=tf.TensorSpec([None, None], tf.float32),
    features=tf.TensorSpec([None, None], tf.string),
)


def read_request(
    candidate_positions: IdLookup,
    batch: tf.Tensor,
    history: tf.Tensor,
    history_age: tf.Tensor,
    history_weight: tf.Tensor,
    features: tf.Tensor,
) -> Request:
    """Look up the candidates of a history; ages and weights that are not given get defaults.

    Args:
        candidate_positions: Positions of candidate ids.
        batch: Number of users, int32 scalar.
        history: String `[batch, h]` of candidate ids; "" is padding.
        history_age: Float32 `[batch, h]` or `[batch, 0]`.
        history_weight: Float32 `[batch, h]` or `[batch, 0]`.
        features: String `[batch, f]`.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, with other shapes or impossible numbers.
    """
    inputs = (history, history_age, history_weight, features)
    names = [spec.name for spec in QUERY_INPUTS]
    checks = [check_rows(*named, batch) for named in zip(names, inputs, strict=True)]
    with tf.control_dependencies(checks):
        positions = candidate_positions(history)
    ages = _per_event(contract.HISTORY_AGE, history_age, history, contract.UNKNOWN_AGE)
    weights = _per_event(contract.HISTORY_WEIGHT, history_weight, history, 1.0)
    highest, lowest = contract.MAX_HISTORY_WEIGHT, contract.MIN_HISTORY_WEIGHT
    fitting = (weights == 0.0) | ((weights >= lowest) & (weights <= highest))
    checks = [  # NaN fails both
        tf.debugging.Assert(
            tf.reduce_all(ages <= contract.MAX_HISTORY_AGE),
            [f"history_age must be at most {contract.MAX_HISTORY_AGE:g} seconds, got", ages],
        ),
        tf.debugging.Assert(
            tf.reduce_all(fitting),
            [
                f"history_weight must be in {lowest:g} to {highest:g}, or 0 for padding, got",
                weights,
            ],
        ),
    ]
    with tf.control_dependencies(checks):
        positions = tf.identity(positions)
    return Request(positions=positions, ages=ages, weights=weights, features=features)


def example_query(user_id: str, candidate_id: str) -> dict[str, Any]:
    """Return a known user and a row without one, with histories, as NumPy arrays by input name."""
    return {
        contract.USER_ID: np.array([user_id, ""], dtype=object),
        contract.HISTORY: np.array(
            [[candidate_id, contract.PADDING_CANDIDATE_ID], [candidate_id] * 2], dtype=object
        ),
        contract.HISTORY_AGE: np.array([[60.0, contract.UNKNOWN_AGE], [60.0, 1.0]], np.float32),
        contract.HISTORY_WEIGHT: np.array([[1.0, 0.0], [1.0, 2.0]], np.float32),
        contract.FEATURES: np.array([[""], [""]], dtype=object),
    }


def check_rows(name: str, values: tf.Tensor, batch: tf.Tensor) -> tf.Operation:
    """Check that an input has a row for each user."""
    return check_equal(
        batch, tf.shape(values)[0], f"{name} must have one row per user_id; users and rows:"
    )


def check_equal(first: tf.Tensor, second: tf.Tensor, message: str) -> tf.Operation:
    """Check that two numbers are equal."""
    return tf.debugging.Assert(tf.equal(first, second), [message, first, second])


def _per_event(name: str, values: tf.Tensor, history: tf.Tensor, default: float) -> tf.Tensor:
    """Return the values `[batch, h]`, or the default for each event if they have width 0."""
    given, width = tf.shape(values)[1], tf.shape(history)[1]
    message = f"{name} must be as wide as history, or have width 0; widths of history and of it:"
    fits = tf.debugging.Assert(
        tf.logical_or(tf.equal(given, 0), tf.equal(given, width)), [message, width, given]
    )
    with tf.control_dependencies([fits]):
        return tf.cond(
            tf.equal(given, 0), lambda: tf.fill(tf.shape(history), default), lambda: values
        )
