"""SavedModels for the soak: brute force and ScaNN, several versions each.

`python -m tests.soak.servables FOLDER VERSIONS` writes them, in a separate process, since it needs
all of TensorFlow. Each version has its own embeddings and adds its number to its answers, so that
a client knows which version answered.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from shortlist.clients import contract

USERS = 1000
CANDIDATES = 2000
DIMENSION = 32
TOP_K = 10


def save(folder: Path, kind: str, version: int) -> None:
    """Write one version of `retrieval_<kind>` to `folder/<kind>/<version>`."""
    random = np.random.default_rng(version)
    users = tf.keras.layers.StringLookup(vocabulary=[f"user-{n}" for n in range(USERS)])
    embedding = tf.constant(random.normal(size=(USERS + 1, DIMENSION)), tf.float32)
    candidates = tf.constant(random.normal(size=(CANDIDATES, DIMENSION)), tf.float32)
    identifiers = tf.constant([f"candidate-{n}" for n in range(CANDIDATES)])
    layers = tfrs.layers.factorized_top_k
    index = (
        layers.BruteForce(k=TOP_K)
        if kind == "brute_force"
        else layers.ScaNN(k=TOP_K, num_leaves=40, num_leaves_to_search=10)
    )
    index.index(candidates, identifiers)

    class Servable(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.index = users, index
            self.embedding = tf.Variable(embedding)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=contract.USER_ID)])
        def retrieve(self, user_id: tf.Tensor) -> dict[str, tf.Tensor]:
            scores, ids = self.index(tf.gather(self.embedding, self.users(user_id)))
            return {
                contract.SCORES: scores,
                contract.CANDIDATE_IDS: ids,
                contract.SERVABLE_VERSION: tf.fill(tf.shape(user_id), tf.constant(version)),
            }

    servable = Servable()
    servable.retrieve(tf.constant(["user-1"]))
    tf.saved_model.save(
        servable,
        str(folder / kind / str(version)),
        signatures={contract.SERVING_DEFAULT: servable.retrieve},
        options=tf.saved_model.SaveOptions(namespace_whitelist=["Scann"]),
    )


def main(folder: Path, versions: int) -> None:
    """Write all versions."""
    for kind in ("brute_force", "scann"):
        for version in range(1, versions + 1):
            save(folder, kind, version)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
