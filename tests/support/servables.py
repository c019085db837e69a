"""Tiny SavedModels for rollouts: a good one, a slow one, and one that fails for many users.

`python -m tests.support.servables FOLDER` writes them, in a separate process, since it needs all
of TensorFlow.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from shortlist.clients import contract
from shortlist.serving.repository.golden import GoldenQuery, write_golden
from shortlist.serving.repository.probe import Probe, write_probe

USERS = [f"user-{number}" for number in range(50)]
IDS = [f"candidate-{number}" for number in range(10)]


class Servable(tf.Module):
    """Answer all users with the same ten candidates."""

    def __init__(self, *, slow: bool, failing: bool) -> None:
        super().__init__()
        self._slow, self._failing = slow, failing
        self._ids = tf.Variable([IDS])
        self._scores = tf.Variable([[float(-number) for number in range(10)]])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=contract.USER_ID)])
    def retrieve(self, user_id: tf.Tensor) -> dict[str, tf.Tensor]:
        checks = []
        if self._failing:
            few = tf.strings.regex_full_match(user_id, "user-[0-9]")
            checks = [tf.debugging.Assert(tf.reduce_all(few), ["no such user"])]
        delay = tf.zeros([])
        if self._slow:
            noise = tf.random.uniform([700, 700])
            delay = tf.reduce_sum(tf.linalg.matmul(noise, noise)) * 0.0
        with tf.control_dependencies(checks):
            rows = tf.shape(user_id)[0]
            return {
                contract.CANDIDATE_IDS: tf.repeat(self._ids, rows, axis=0),
                contract.SCORES: tf.repeat(self._scores, rows, axis=0) + delay,
            }


def save(folder: Path, *, slow: bool = False, failing: bool = False) -> None:
    """Write one servable with a known answer and probe users."""
    servable = Servable(slow=slow, failing=failing)
    signatures = {contract.SERVING_DEFAULT: servable.retrieve}
    tf.saved_model.save(servable, str(folder), signatures=signatures)
    answer = {
        key: [
            [
                item.decode() if isinstance(item, bytes) else item
                for item in value.numpy()[0].tolist()
            ]
        ]
        for key, value in servable.retrieve(tf.constant(["user-1"])).items()
    }
    inputs = {contract.USER_ID: ["user-1"]}
    query = GoldenQuery(signature=contract.SERVING_DEFAULT, inputs=inputs, outputs=answer)
    write_golden(folder, [query])
    write_probe(
        folder,
        Probe(
            k=10,
            user_ids=USERS,
            exact_ids=[IDS] * len(USERS),
        ),
    )


def main(folder: Path) -> None:
    """Write all servables."""
    save(folder / "good")
    save(folder / "slow", slow=True)
    save(folder / "failing", failing=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
