"""A tiny SavedModel that takes histories and features, and answers with what it read.

`python -m tests.support.query_servable FOLDER…` writes it, in a separate process, since it needs
all of TensorFlow. A candidate's score is the weight of its events, halved if they are older than
an hour; its position decides between equal ones. The embedding of a query counts its known events,
their weights, known ages and features.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from shortlist.clients import contract
from tests.support.servables import IDS

QUERY = [
    tf.TensorSpec([None], tf.string, name=contract.USER_ID),
    tf.TensorSpec([None, None], tf.string, name=contract.HISTORY),
    tf.TensorSpec([None, None], tf.float32, name=contract.HISTORY_AGE),
    tf.TensorSpec([None, None], tf.float32, name=contract.HISTORY_WEIGHT),
    tf.TensorSpec([None, None], tf.string, name=contract.FEATURES),
]
OPTIONS = [
    tf.TensorSpec([], tf.bool, name=contract.EXCLUDE_HISTORY),
    tf.TensorSpec([], tf.int32, name=contract.K),
    tf.TensorSpec([None, None], tf.string, name=contract.EXCLUDE),
    tf.TensorSpec([], tf.bool, name=contract.EXCLUDE_SEEN),
    *(
        tf.TensorSpec([None], tf.string, name=name)
        for name in (
            *(contract.FILTER_ANY, contract.FILTER_ALL, contract.FILTER_MIN, contract.FILTER_MAX),
        )
    ),
]


def _or(values: tf.Tensor, like: tf.Tensor, default: float) -> tf.Tensor:
    """Return the values, or the default for each event if there are none."""
    return tf.cond(
        tf.shape(values)[1] > 0, lambda: values, lambda: tf.fill(tf.shape(like), default)
    )


class Servable(tf.Module):
    """Candidates of a history."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self._version = version
        self._ids = tf.Variable(IDS)

    def _events(
        self, history: tf.Tensor, ages: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return which candidate each event has `[batch, h, candidates]`, ages and weights."""
        same = tf.cast(history[:, :, tf.newaxis] == self._ids, tf.float32)
        return same, _or(ages, history, contract.UNKNOWN_AGE), _or(weights, history, 1.0)

    def _flags(self, user_id: tf.Tensor, same: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            contract.KNOWN_USER: tf.strings.regex_full_match(user_id, "user-[0-9]+"),
            contract.KNOWN_HISTORY: tf.cast(tf.reduce_sum(same, [1, 2]), tf.int32),
            contract.SERVABLE_VERSION: tf.fill(
                tf.shape(user_id), tf.constant(self._version, tf.int64)
            ),
        }

    @tf.function(input_signature=[*QUERY, *OPTIONS])
    def retrieve(
        self,
        user_id: tf.Tensor,
        history: tf.Tensor,
        history_age: tf.Tensor,
        history_weight: tf.Tensor,
        features: tf.Tensor,
        exclude_history: tf.Tensor,
        k: tf.Tensor,
        exclude: tf.Tensor,
        *_: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        same, ages, weights = self._events(history, history_age, history_weight)
        worth = weights * tf.where(ages > 3600.0, 0.5, 1.0)
        scores = tf.einsum("bhc,bh->bc", same, worth) - tf.range(len(IDS), dtype=tf.float32) / 1000
        gone = tf.reduce_any(exclude[:, :, tf.newaxis] == self._ids, axis=1)
        gone |= exclude_history & (tf.reduce_sum(same, axis=1) > 0)
        scores = tf.where(gone, contract.PADDING_SCORE, scores)
        best, positions = tf.math.top_k(scores, tf.minimum(k, len(IDS)))
        ids = tf.gather(self._ids, positions)
        padding = contract.PADDING_CANDIDATE_ID
        return {
            contract.CANDIDATE_IDS: tf.where(best > contract.PADDING_SCORE, ids, padding),
            contract.SCORES: best,
            **self._flags(user_id, same),
        }

    @tf.function(input_signature=QUERY)
    def embed(
        self,
        user_id: tf.Tensor,
        history: tf.Tensor,
        history_age: tf.Tensor,
        history_weight: tf.Tensor,
        features: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        same, ages, weights = self._events(history, history_age, history_weight)
        event = tf.cast(history != contract.PADDING_CANDIDATE_ID, tf.float32)
        parts = [
            tf.reduce_sum(same, [1, 2]),
            tf.reduce_sum(weights * event, 1),
            tf.reduce_sum(tf.where(ages >= 0, ages, 0.0), 1),
            tf.reduce_sum(tf.cast(features != "", tf.float32), 1),
        ]
        return {contract.QUERY_EMBEDDING: tf.stack(parts, axis=1), **self._flags(user_id, same)}


def main(folder: Path) -> None:
    """Write the SavedModel of one version."""
    servable = Servable(int(folder.name))
    signatures = {
        contract.SERVING_DEFAULT: servable.retrieve,
        contract.RETRIEVE_BY_QUERY: servable.retrieve,
        contract.EMBED_BY_QUERY: servable.embed,
    }
    tf.saved_model.save(servable, str(folder), signatures=signatures)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        main(Path(name))
