"""Train two towers with Keras 3, publish them with Shortlist, and ask them.

    python examples/keras3_two_tower.py WORK_DIR

Keras 3 and Shortlist's exporter, which needs Keras 2 for TensorFlow Recommenders, run in
processes of their own: this one trains and exports, `shortlist index` publishes.
"""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf
from serve_and_ask import ask

USERS, FILMS, EVENTS, DIMENSION = 200, 400, 12_000, 16


def interactions() -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Return users, films, and which user watched which film: groups with a common taste."""
    random = np.random.default_rng(7)
    users = random.integers(0, USERS, EVENTS)
    films = (users % 8) * (FILMS // 8) + random.zipf(1.4, EVENTS) % (FILMS // 8)
    return [f"user-{i}" for i in range(USERS)], [f"film-{i}" for i in range(FILMS)], users, films


def tower(name: str, ids: list[str]) -> keras.Model:
    """Return a tower from an id to a vector."""
    text = keras.Input((1,), dtype="string", name=name)
    row = keras.layers.StringLookup(vocabulary=ids)(text)
    vector = keras.layers.Flatten()(keras.layers.Embedding(len(ids) + 1, DIMENSION)(row))
    return keras.Model(text, vector)


def main(work: Path) -> None:
    """Train, export, publish and ask."""
    keras.utils.set_random_seed(7)
    user_ids, film_ids, users, films = interactions()
    query_tower, film_tower = tower("user_id", user_ids), tower("film_id", film_ids)
    optimizer = keras.optimizers.Adam(0.02)

    @tf.function
    def step(batch_users: tf.Tensor, batch_films: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = query_tower(batch_users) @ tf.transpose(film_tower(batch_films))
            # The other films of the batch are the negatives.
            labels = tf.range(tf.shape(logits)[0])
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        weights = [*query_tower.trainable_weights, *film_tower.trainable_weights]
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    names = tf.constant(user_ids), tf.constant(film_ids)
    events = tf.data.Dataset.from_tensor_slices((users, films)).shuffle(EVENTS, seed=7)
    for epoch in range(4):
        losses = [
            step(tf.gather(names[0], u)[:, None], tf.gather(names[1], f)[:, None])
            for u, f in events.batch(256)
        ]
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")

    query_tower.export(work / "query_tower", verbose=False)
    film_tower.export(work / "film_tower", verbose=False)
    genres = [f"genre {i // (FILMS // 8)}" for i in range(FILMS)]
    for name, columns in {
        "films": {"film_id": film_ids, "genre": genres},
        "watched": {
            "user_id": [user_ids[i] for i in users],
            "film_id": [film_ids[i] for i in films],
        },
    }.items():
        pyarrow.parquet.write_table(pa.table(columns), work / f"{name}.parquet")
    subprocess.run(
        [
            sys.executable, "-m", "shortlist", "index", "--query-tower", str(work / "query_tower"),
            "--candidate-tower", str(work / "film_tower"),
            "--candidates", str(work / "films.parquet"), "--candidate-column", "film_id",
            "--interactions", str(work / "watched.parquet"),
            "--model", "films", "--index", "ivf", "--repository", str(work / "models"),
        ],
        check=True,
    )  # fmt: skip
    ask(work / "models", "films_ivf", ["user-3", "user-4"], {"genre": ["genre 3"]})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
