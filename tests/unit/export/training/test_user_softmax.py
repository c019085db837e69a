"""The default model's loss against plain loops, its features and its tables."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.pairs import Pairs
from shortlist.export.towers.features import CandidateFeatures
from shortlist.export.training.user_scores import UserHistories, sample_size
from shortlist.export.training.user_softmax import UserSoftmaxModel

MODEL = ModelConfig(embedding_dim=6, temperature=0.5, inner_product_weight=1.0)


@pytest.fixture
def dataset() -> Dataset:
    random = np.random.default_rng(2)
    keys = np.unique(random.integers(0, 8 * 30, 70))
    return Dataset(
        name="synthetic",
        user_ids=tuple(str(user) for user in range(9)),
        candidate_ids=tuple(str(candidate) for candidate in range(30)),
        titles=tuple(str(candidate) for candidate in range(30)),
        user_positions=(keys // 30).astype(np.int32),
        candidate_positions=(keys % 30).astype(np.int32),
        attributes={
            "genres": Attribute(values=tuple(("a", "b")[: n % 3] for n in range(30))),
            "year": Attribute(numbers=np.where(np.arange(30) == 7, np.nan, np.arange(30.0))),
        },
    )


def make(dataset: Dataset, **changes: float) -> UserSoftmaxModel:
    histories = UserHistories(
        Pairs.by_user(dataset, np.arange(dataset.num_interactions)), len(dataset.candidate_ids)
    )
    return UserSoftmaxModel(dataset, histories, MODEL, TrainConfig(**changes))  # type: ignore[arg-type]


def plain_loss(
    dataset: Dataset,
    queries: npt.NDArray[np.float32],
    candidates: npt.NDArray[np.float32],
    users: list[int],
    power: float,
) -> float:
    """Loss of one pair of towers, whose inner products are the logits."""
    total = weight = 0.0
    for user in users:
        of_user = dataset.user_positions == user
        own = dataset.candidate_positions[of_user].tolist()
        logits = [float(row @ queries[user]) for row in candidates]
        others = sum(math.exp(logit) for c, logit in enumerate(logits) if c not in own)
        losses = [-math.log(math.exp(logits[c]) / (math.exp(logits[c]) + others)) for c in own]
        weights = None if dataset.weights is None else dataset.weights[of_user]
        total += len(own) ** power * np.average(losses, weights=weights)
        weight += len(own) ** power
    return total / weight


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_loss_is_that_of_both_pairs_and_a_penalty(dataset: Dataset, power: float) -> None:
    model = make(dataset, activity_power=power, norm_penalty=3.0)
    users = [3, 0, 6]
    loss = float(model.loss(tf.constant(users)))
    queries, candidates = model.query_embeddings(), model.candidate_embeddings()
    expected = plain_loss(dataset, queries[:, :3], candidates[:, :3], users, power)
    expected += plain_loss(dataset, queries[:, 3:], candidates[:, 3:], users, power)
    counts = np.bincount(dataset.user_positions, minlength=9)
    squares = np.average(np.sum(queries[users, 3:] ** 2, axis=1), weights=counts[users] ** power)
    # The features add nothing yet.
    squares += np.sum(candidates[:, 3:] ** 2) / np.count_nonzero(counts)
    assert loss == pytest.approx(expected + 3.0 * squares / 2, rel=1e-5)


def test_an_interaction_of_twice_the_weight_counts_twice(dataset: Dataset) -> None:
    weights = np.random.default_rng(3).uniform(0.1, 10, dataset.num_interactions)
    weighted = dataclasses.replace(dataset, weights=weights.astype(np.float32))
    losses = []
    for data in (dataset, weighted):
        model = make(data, norm_penalty=0.0)
        queries, candidates = model.query_embeddings(), model.candidate_embeddings()
        losses.append(float(model.loss(tf.constant([3, 0, 6]))))
        expected = sum(
            plain_loss(data, queries[:, part], candidates[:, part], [3, 0, 6], 0.5)
            for part in (slice(3), slice(3, None))
        )
        assert losses[-1] == pytest.approx(expected, rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_losses_of_a_batch_in_parts_add_up(dataset: Dataset) -> None:
    """Several workers share a batch out; penalties must count once, too."""
    model = make(dataset, norm_penalty=3.0)
    weights = np.bincount(dataset.user_positions, minlength=9)[:6] ** 0.5
    total = tf.constant(weights.sum(), tf.float32)
    parts = [float(model.loss(tf.constant(part), total)) for part in ([0, 2, 4], [1, 3, 5])]
    whole = float(model.loss(tf.constant([0, 1, 2, 3, 4, 5])))
    assert sum(parts) == pytest.approx(whole, rel=1e-5)


def test_first_pair_is_a_cosine_over_the_temperature(dataset: Dataset) -> None:
    model = make(dataset)
    for rows in (model.query_embeddings(), model.candidate_embeddings()):
        np.testing.assert_allclose(np.sum(rows[:, :3] ** 2, axis=1), 1 / 0.5, rtol=1e-5)
        assert np.sum(rows[:, 3:] ** 2, axis=1).max() < 1


def test_weight_says_how_much_the_second_pair_counts(dataset: Dataset) -> None:
    histories = UserHistories(
        Pairs.by_user(dataset, np.arange(dataset.num_interactions)), len(dataset.candidate_ids)
    )

    def scores(weight: float) -> npt.NDArray[np.float32]:
        config = dataclasses.replace(MODEL, inner_product_weight=weight)
        model = UserSoftmaxModel(dataset, histories, config, TrainConfig())
        queries, candidates = model.query_embeddings(), model.candidate_embeddings()
        assert queries.shape[1] == candidates.shape[1] == 6
        return np.asarray(queries @ candidates.T)

    whole = make(dataset)
    queries, candidates = whole.query_embeddings(), whole.candidate_embeddings()
    cosines, others = queries[:, :3] @ candidates[:, :3].T, queries[:, 3:] @ candidates[:, 3:].T
    np.testing.assert_allclose(scores(0.25), cosines + 0.25 * others, atol=1e-5)
    assert np.abs(scores(0.0)).max() <= 1 / 0.5 + 1e-5, "cosines alone"


def test_pairs_learn_apart_and_every_table_learns(dataset: Dataset) -> None:
    """An ensemble: neither pair's gradient may depend on the other."""
    users = tf.constant([0, 1, 2, 3])

    def gradients(model: UserSoftmaxModel) -> dict[str, npt.NDArray[np.float32]]:
        with tf.GradientTape() as tape:
            loss = model.loss(users)
        gradients = tape.gradient(loss, model.trainable_variables)
        names = [variable.name for variable in model.trainable_variables]
        return {n: tf.convert_to_tensor(g).numpy() for n, g in zip(names, gradients, strict=True)}

    both = make(dataset)
    assert len(gradients(both)) == 6
    assert all(np.abs(gradient).max() > 0 for gradient in gradients(both).values())
    before = gradients(both)
    moved = [v for v in both.trainable_variables if "inner_product" in v.name]
    assert len(moved) == 3
    for variable in moved:
        variable.assign_add(tf.ones_like(variable))
    after = gradients(both)
    for name, gradient in before.items():
        same = np.array_equal(gradient, after[name])
        assert same == ("cosine" in name), name


@pytest.mark.slow
def test_sampled_loss_and_gradient_come_near_the_exact_ones(dataset: Dataset) -> None:
    """The sum over the other candidates is estimated without bias by a sample of them."""
    exact, sampled = make(dataset), make(dataset, sampled_candidates=30)
    users = tf.constant([0, 1, 2, 3, 4, 5, 6, 7])

    def loss_and_gradient(
        model: UserSoftmaxModel, times: int
    ) -> tuple[float, npt.NDArray[np.float32]]:
        losses, gradients = [], []
        for _ in range(times):
            with tf.GradientTape() as tape:
                loss = model.loss(users)
            gradient = tape.gradient(loss, model.trainable_variables[0])
            losses.append(float(loss))
            gradients.append(tf.convert_to_tensor(gradient).numpy())
        return float(np.mean(losses)), np.mean(gradients, axis=0)

    loss, gradient = loss_and_gradient(exact, 1)
    near, near_gradient = loss_and_gradient(sampled, 150)
    assert near == pytest.approx(loss, rel=0.05)
    cosine = np.sum(gradient * near_gradient) / np.linalg.norm(gradient)
    assert cosine / np.linalg.norm(near_gradient) > 0.95


@pytest.mark.parametrize(
    ("num_candidates", "batch_size", "configured", "expected"),
    [
        (60_000, 128, None, None),
        (1_000_000, 128, None, 125_000),
        (1_000_000, 10_000_000, None, 1024),
        (100, 128, 5000, 100),
        (60_000, 128, 5000, 5000),
    ],
)
def test_corpus_is_sampled_only_where_it_does_not_fit(
    num_candidates: int, batch_size: int, configured: int | None, expected: int | None
) -> None:
    assert sample_size(num_candidates, batch_size, configured) == expected


def test_features_of_a_candidate_have_unit_length_and_split_numbers(dataset: Dataset) -> None:
    features = CandidateFeatures(dataset)
    matrix = features.project(tf.eye(len(features.names))).numpy()
    norms = np.linalg.norm(matrix, axis=1)
    # Candidate 7 has one genre and no year.
    np.testing.assert_allclose(norms, np.where(np.arange(30) % 3 < 0, 0, 1), atol=1e-6)
    assert [features.names[c] for c in np.flatnonzero(matrix[7])] == ["genres=a"]
    years = [name for name in features.names if name.startswith("year")]
    assert len(years) == 16
    assert (matrix[:, [features.names.index(name) for name in years]] > 0).sum(axis=0).min() >= 1
    some = tf.constant([5, 7, 5])
    np.testing.assert_allclose(
        features.project(tf.eye(len(features.names)), some).numpy(), matrix[[5, 7, 5]]
    )


def test_attribute_without_values_adds_nothing() -> None:
    dataset = Dataset(
        name="synthetic",
        user_ids=("0",),
        candidate_ids=("0", "1"),
        titles=("0", "1"),
        user_positions=np.zeros(1, np.int32),
        candidate_positions=np.zeros(1, np.int32),
        attributes={
            "price": Attribute(numbers=np.full(2, np.nan)),
            "tags": Attribute(values=((), ("x",))),
        },
    )
    features = CandidateFeatures(dataset)
    assert features.names == ["tags=x"]
    assert features.project(tf.ones([1, 2])).numpy().tolist() == [[0, 0], [1, 1]]
