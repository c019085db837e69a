"""The second stage: what a user has comes last, and the rest keeps its order."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.data.split import Split
from shortlist.export.training.seen_last import SeenLastModel
from shortlist.export.training.train import train
from shortlist.export.training.user_scores import UserHistories
from tests.support.evaluation import evaluate_users, inner_products

USERS, CANDIDATES, DIMENSIONS = 6, 20, 4


@pytest.fixture
def dataset() -> Dataset:
    random = np.random.default_rng(3)
    keys = np.unique(
        np.concatenate([np.arange(USERS) * CANDIDATES, random.integers(0, USERS * CANDIDATES, 40)])
    )
    return Dataset(
        name="synthetic",
        user_ids=tuple(str(user) for user in range(USERS)),
        candidate_ids=tuple(str(candidate) for candidate in range(CANDIDATES)),
        titles=tuple(str(candidate) for candidate in range(CANDIDATES)),
        user_positions=(keys // CANDIDATES).astype(np.int32),
        candidate_positions=(keys % CANDIDATES).astype(np.int32),
    )


def tables() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    random = np.random.default_rng(4)
    return (
        random.normal(size=(USERS, DIMENSIONS)).astype(np.float32),
        random.normal(size=(CANDIDATES, DIMENSIONS)).astype(np.float32),
    )


def make(dataset: Dataset, **changes: float) -> SeenLastModel:
    histories = UserHistories(
        Pairs.by_user(dataset, np.arange(dataset.num_interactions)), len(dataset.candidate_ids)
    )
    return SeenLastModel(histories, *tables(), TrainConfig(**changes))  # type: ignore[arg-type]


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def test_loss_is_the_cross_entropy_with_the_teacher_without_what_is_seen(dataset: Dataset) -> None:
    model = make(dataset, activity_power=0.5)
    queries, candidates = tables()
    for variable in model.trainable_variables:  # so that towers and teacher differ
        variable.assign_add(0.3 * tf.ones_like(variable))
    users = [4, 0, 1]
    total = weight = 0.0
    for user in users:
        own = dataset.candidate_positions[dataset.user_positions == user]
        teacher = (candidates @ queries[user]).astype(np.float64)
        teacher[own] = -np.inf
        towers = ((candidates + 0.3) @ (queries[user] + 0.3)).astype(np.float64)
        loss = -float(softmax(teacher) @ np.log(softmax(towers)))
        total += len(own) ** 0.5 * loss
        weight += len(own) ** 0.5
    assert float(model.loss(tf.constant(users))) == pytest.approx(total / weight, rel=1e-5)


def test_no_step_teaches_a_user_what_it_has(dataset: Dataset) -> None:
    """The gradient lowers the logit of each candidate that a user has."""
    model = make(dataset)
    variables = {variable.name: variable for variable in model.trainable_variables}
    assert sorted(variables) == ["seen_last_candidates:0", "seen_last_users:0"]
    with tf.GradientTape() as tape:
        loss = model.loss(tf.constant([2]))
    gradient = tape.gradient(loss, variables["seen_last_candidates:0"])
    gradient = tf.convert_to_tensor(gradient).numpy()
    own = dataset.candidate_positions[dataset.user_positions == 2]
    along = gradient @ tables()[0][2]
    assert along[own].min() > 0


def test_gradient_by_a_sample_comes_near_the_exact_one(dataset: Dataset) -> None:
    users = tf.constant([0, 1, 2, 3, 4, 5])

    def mean_gradient(model: SeenLastModel, times: int) -> npt.NDArray[np.float32]:
        for variable in model.trainable_variables:
            variable.assign_add(0.3 * tf.ones_like(variable))

        @tf.function
        def gradient() -> tf.Tensor:
            with tf.GradientTape() as tape:
                loss = model.loss(users)
            return tf.convert_to_tensor(tape.gradient(loss, model.trainable_variables[0]))

        return np.mean([gradient().numpy() for _ in range(times)], axis=0)

    exact = mean_gradient(make(dataset), 1)
    # As many draws as candidates meet about two thirds of them, so a bias remains.
    near = mean_gradient(make(dataset, sampled_candidates=20), 200)
    cosine = np.sum(exact * near) / np.linalg.norm(exact) / np.linalg.norm(near)
    assert cosine > 0.9
    assert np.linalg.norm(near) == pytest.approx(float(np.linalg.norm(exact)), rel=0.2)


@pytest.mark.slow
def test_lists_with_seen_candidates_gain_and_those_without_keep_their_quality(
    data: Dataset, split: Split
) -> None:
    first = TrainConfig(epochs=12, batch_size=64, learning_rate=0.03)
    metrics = []
    for config in (first, dataclasses.replace(first, seen_last_epochs=30)):
        model = train(data, split, ModelConfig(embedding_dim=32, query_tower="table"), config)
        queries = model.embed_users(np.arange(len(data.user_ids)))
        scorer = inner_products(queries, model.candidate_embeddings)
        metrics.append(evaluate_users(scorer, data, split, ks=[10]).metrics)
    before, after = metrics
    assert after["seen_kept"]["hit_rate@10"] > 2 * before["seen_kept"]["hit_rate@10"]
    assert after["seen_excluded"]["hit_rate@10"] > 0.85 * before["seen_excluded"]["hit_rate@10"]
