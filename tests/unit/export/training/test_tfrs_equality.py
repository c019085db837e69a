"""Our in-batch recipes compared with the models of the TFRS tutorials."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from shortlist.export._tf import tf, tfrs
from shortlist.export.config import PRESETS
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.towers.ids import IdTower
from shortlist.export.training.in_batch_softmax import MultitaskModel, RetrievalModel
from shortlist.export.training.train import train


class TutorialModel(tfrs.Model):
    """Two towers from strings, and the retrieval task with its metrics."""

    def __init__(self, data: Dataset, dimension: int) -> None:
        super().__init__()
        self.user_model = tower(data.user_ids, dimension)
        self.movie_model = tower(data.candidate_ids, dimension)
        movies = tf.data.Dataset.from_tensor_slices(list(data.candidate_ids)).batch(128)
        self.retrieval_task = tfrs.tasks.Retrieval(
            metrics=tfrs.metrics.FactorizedTopK(candidates=movies.map(self.movie_model))
        )

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        return self.retrieval_task(
            self.user_model(features["user_id"]),
            self.movie_model(features["movie_title"]),
            compute_metrics=not training,
        )


class MultitaskTutorialModel(TutorialModel):
    """The same with the tutorial's rating model and task, both weights 1."""

    def __init__(self, data: Dataset, dimension: int) -> None:
        super().__init__(data, dimension)
        self.rating_model = tf.keras.Sequential(
            [
                tf.keras.layers.Dense(256, activation="relu"),
                tf.keras.layers.Dense(128, activation="relu"),
                tf.keras.layers.Dense(1),
            ]
        )
        self.rating_model.build([None, 2 * dimension])
        self.rating_task = tfrs.tasks.Ranking(
            loss=tf.keras.losses.MeanSquaredError(),
            metrics=[tf.keras.metrics.RootMeanSquaredError()],
        )

    def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        users = self.user_model(features["user_id"])
        movies = self.movie_model(features["movie_title"])
        predictions = self.rating_model(tf.concat([users, movies], axis=1))
        rating_loss = self.rating_task(labels=features["user_rating"], predictions=predictions)
        retrieval_loss = self.retrieval_task(users, movies, compute_metrics=not training)
        return 1.0 * rating_loss + 1.0 * retrieval_loss


def tower(ids: tuple[str, ...], dimension: int) -> Any:
    model = tf.keras.Sequential(
        [
            tf.keras.layers.StringLookup(vocabulary=list(ids), mask_token=None),
            tf.keras.layers.Embedding(len(ids) + 1, dimension),
        ]
    )
    model(tf.constant(ids[:1]))  # creates the weights
    return model


def pair(data: Dataset, preset: str, seed: int) -> tuple[RetrievalModel, TutorialModel]:
    """Our model as training starts with it, and the tutorial's with the same values."""
    model_config, config = PRESETS[preset]
    tf.keras.utils.set_random_seed(seed)
    if preset == "multitask":
        ours: RetrievalModel = MultitaskModel(
            data,
            model_config,
            retrieval_weight=config.retrieval_weight,
            rating_weight=config.rating_weight,
        )
        theirs: TutorialModel = MultitaskTutorialModel(data, model_config.embedding_dim)
        assert isinstance(ours, MultitaskModel)
        assert isinstance(theirs, MultitaskTutorialModel)
        theirs.rating_model.set_weights(ours.rating_network.get_weights())
    else:
        ours = RetrievalModel(data, model_config)
        theirs = TutorialModel(data, model_config.embedding_dim)
    theirs.user_model.set_weights(ours.query_tower.get_weights())
    theirs.movie_model.set_weights(ours.candidate_tower.get_weights())
    return ours, theirs


def strings(data: Dataset, part: np.ndarray) -> dict[str, tf.Tensor]:
    """A batch in the form of the tutorials."""
    assert data.ratings is not None
    users, candidates = data.user_positions[part], data.candidate_positions[part]
    return {
        "user_id": tf.constant([data.user_ids[user] for user in users]),
        "movie_title": tf.constant([data.candidate_ids[candidate] for candidate in candidates]),
        "user_rating": tf.constant(data.ratings[part]),
    }


def dense(gradient: Any) -> np.ndarray:
    return np.asarray(tf.convert_to_tensor(gradient))


@pytest.mark.parametrize("preset", ["tutorial", "overview", "multitask"])
def test_loss_and_gradients_are_those_of_the_tutorial(small_dataset: Dataset, preset: str) -> None:
    ours, theirs = pair(small_dataset, preset, seed=3)
    part = np.random.default_rng(1).choice(small_dataset.num_interactions, 256, replace=False)
    assert small_dataset.ratings is not None
    positions = {
        "user": tf.constant(small_dataset.user_positions[part]),
        "candidate": tf.constant(small_dataset.candidate_positions[part]),
        "rating": tf.constant(small_dataset.ratings[part]),
    }
    results = []
    for model, batch in ((ours, positions), (theirs, strings(small_dataset, part))):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch, training=True)
        results.append((loss, tape.gradient(loss, model.trainable_variables)))
    (loss, gradients), (expected, theirs_gradients) = results
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert len(gradients) == len(theirs_gradients) == (8 if preset == "multitask" else 2)
    by_shape = sorted(theirs_gradients, key=lambda gradient: tuple(gradient.shape))
    for own, other in zip(
        sorted(gradients, key=lambda gradient: tuple(gradient.shape)), by_shape, strict=True
    ):
        np.testing.assert_allclose(dense(own), dense(other), rtol=1e-5, atol=1e-6)
        assert np.abs(dense(own)).max() > 1e-3


@pytest.mark.parametrize("preset", ["tutorial", "multitask"])
def test_a_training_step_is_that_of_the_tutorial(small_dataset: Dataset, preset: str) -> None:
    """One batch of everything, through our trainer and through the tutorial's `fit`."""
    model_config, config = PRESETS[preset]
    everything = np.arange(small_dataset.num_interactions)
    split = Split(training=everything, held_out=everything[:1])
    config = dataclasses.replace(config, epochs=1, seed=5)
    assert config.batch_size >= small_dataset.num_interactions
    model = train(small_dataset, split, model_config, config)

    _, theirs = pair(small_dataset, preset, seed=5)
    before = theirs.movie_model.get_weights()[0].copy()
    theirs.compile(optimizer=tf.keras.optimizers.Adagrad(config.learning_rate))
    batches = tf.data.Dataset.from_tensor_slices(strings(small_dataset, everything)).batch(8192)
    history = theirs.fit(batches, epochs=1, verbose=0)

    movies = theirs.movie_model.get_weights()[0]
    assert np.abs(movies - before).max() > 0.01
    np.testing.assert_allclose(model.candidate_embeddings, movies[1:], rtol=1e-4, atol=1e-6)
    users = theirs.user_model.get_weights()[0]
    queries = model.embed_users(np.arange(len(small_dataset.user_ids)))
    np.testing.assert_allclose(queries, users[1:], rtol=1e-4, atol=1e-6)
    loss = history.history["loss"][0]
    assert model.records[0].loss * len(everything) == pytest.approx(loss, rel=1e-5)


def test_vocabularies_are_those_that_adapt_gives(small_dataset: Dataset) -> None:
    """TFRS's overview adapts them: users to the ratings, titles to the catalogue."""
    everything = np.arange(small_dataset.num_interactions)
    sources = (
        (small_dataset.user_ids, strings(small_dataset, everything)["user_id"]),
        (small_dataset.candidate_ids, tf.constant(small_dataset.candidate_ids)),
    )
    for ids, seen in sources:
        adapted = tf.keras.layers.StringLookup(mask_token=None)
        adapted.adapt(tf.data.Dataset.from_tensor_slices(seen).batch(256))
        ours = IdTower(ids, embedding_dim=4, name="tower")
        rows = ours.positions(tf.constant(adapted.get_vocabulary()[1:])).numpy()
        assert sorted(rows) == list(range(len(ids)))  # each known, none twice, none left over
        assert ours.embedding.embeddings.shape[0] == adapted.vocabulary_size()
