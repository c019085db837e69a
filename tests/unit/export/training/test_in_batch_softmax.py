"""The in-batch softmax is TFRS's, to the last gradient."""

import numpy as np
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.training.in_batch_softmax import RetrievalModel


@pytest.mark.parametrize("batch", [2, 7, 600])
def test_loss_and_gradients_equal_those_of_tfrs(small_dataset: Dataset, batch: int) -> None:
    """With users and candidates that occur several times, and with none that do."""
    tf.keras.utils.set_random_seed(1)
    model = RetrievalModel(small_dataset, ModelConfig(embedding_dim=8))
    random = np.random.default_rng(batch)
    some = random.choice(small_dataset.num_interactions, batch, replace=False)
    users = tf.constant(small_dataset.user_positions[some])
    candidates = tf.constant(small_dataset.candidate_positions[some])
    tables = model.trainable_variables
    for table in tables:
        table.assign(tf.random.normal(table.shape))
    with tf.GradientTape() as tape:
        ours = model.compute_loss({"user": users, "candidate": candidates}, training=True)
    our_gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(ours, tables)]
    with tf.GradientTape() as tape:
        theirs = model.task(
            model.query_tower.embed_positions(users),
            model.candidate_tower.embed_positions(candidates),
            compute_metrics=False,
        )
    their_gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(theirs, tables)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
