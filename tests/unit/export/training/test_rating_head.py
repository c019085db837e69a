"""Rating heads: better than the means, harmless to retrieval, sane for unknown ids."""

import dataclasses

import numpy as np
import pytest

from shortlist.export.cli.commands import add_commands
from shortlist.export.config import PRESETS, ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.judge import judge_model
from shortlist.export.towers.rating_head import RatingHead
from shortlist.export.towers.rating_means import fit_means, means_of, rmse
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.train import train

MODEL = ModelConfig(embedding_dim=16, query_tower="table")
TRAIN = TrainConfig(epochs=12, batch_size=64, learning_rate=0.03, rating_weight=1.0)


@pytest.fixture(scope="module")
def multitask(data: Dataset, split: Split) -> TrainedModel:
    model_config, config = PRESETS["multitask"]
    return train(data, split, model_config, dataclasses.replace(config, batch_size=512, epochs=8))


def rated(
    head: RatingHead, model: TrainedModel, users: list[int], candidates: list[int]
) -> np.ndarray:
    """Ratings of positions; unknown ones have any embedding."""
    queries = model.embed_users(np.maximum(users, 0))[:, : model.taste_dimension]
    known = np.minimum(candidates, len(model.taste_embeddings) - 1)
    return head(
        np.array(users, np.int64),
        queries,
        np.array(candidates, np.int32),
        model.taste_embeddings[known],
    ).numpy()


@pytest.mark.slow
def test_default_head_beats_the_means(data: Dataset, split: Split, model: TrainedModel) -> None:
    quality = judge_model(model, data, split).rating
    assert quality is not None
    assert quality.rmse < 0.99 * quality.baseline_rmse
    assert quality.num_ratings == len(split.held_out)


@pytest.mark.slow
def test_default_head_leaves_the_towers_alone(
    data: Dataset, split: Split, model: TrainedModel
) -> None:
    without = train(data, split, MODEL, dataclasses.replace(TRAIN, rating_weight=0.0))
    assert without.rating_head is None
    assert judge_model(without, data, split).rating is None
    users = np.arange(len(data.user_ids))
    np.testing.assert_array_equal(without.embed_users(users), model.embed_users(users))
    np.testing.assert_array_equal(without.candidate_embeddings, model.taste_embeddings)


def test_ridge_regression_equals_its_normal_equations(
    data: Dataset, split: Split, model: TrainedModel
) -> None:
    """The kernel trick, for users with few ratings, gives the same result."""
    from shortlist.export.training import rating_head

    part = split.training
    users, candidates = data.user_positions[part], data.candidate_positions[part]
    targets = np.random.default_rng(3).normal(size=len(part))
    embeddings = model.taste_embeddings.astype(np.float64)
    tastes = rating_head._ridge(users, candidates, targets, embeddings, 5.0, len(data.user_ids))
    counts = np.bincount(users)
    few, many = int(np.argmin(counts)), int(np.argmax(counts))
    assert counts[few] < 16 < counts[many]
    for user in (few, many):
        features = embeddings[candidates[users == user]]
        normal = features.T @ features + 5.0 * np.eye(16)
        expected = np.linalg.solve(normal, features.T @ targets[users == user])
        np.testing.assert_allclose(tastes[user], expected, rtol=1e-6, atol=1e-9)


def test_means_are_those_of_a_plain_loop() -> None:
    data = Dataset(
        name="few",
        user_ids=("a", "b", "c"),
        candidate_ids=("x", "y"),
        user_positions=np.array([0, 0, 1], np.int32),
        candidate_positions=np.array([0, 1, 0], np.int32),
        ratings=np.array([5.0, 3.0, 1.0], np.float32),
        titles=("x", "y"),
    )
    means = means_of(data, np.arange(3), (2.0, 1.0))
    user, candidate = [0.0, 0.0], [0.0, 0.0]
    for _ in range(10):
        candidate = [(2 - user[0] + -2 - user[1]) / 3, (0 - user[0]) / 2]
        user = [(2 - candidate[0] + 0 - candidate[1]) / 4, (-2 - candidate[0]) / 3]
    assert means.mean == 3.0
    np.testing.assert_allclose(means.user_bias, [*user, 0.0])
    np.testing.assert_allclose(means.candidate_bias, candidate)
    assert (means.lowest, means.highest) == (1.0, 5.0)


def test_strengths_are_those_that_predict_the_validation_part_best(
    data: Dataset, split: Split
) -> None:
    def error(strengths: tuple[float, float]) -> float:
        means = means_of(data, split.training, strengths)
        users = data.user_positions[split.validation]
        predicted = means.predict(users, data.candidate_positions[split.validation])
        assert data.ratings is not None
        return rmse(predicted, data.ratings[split.validation])

    best = fit_means(data, split).strengths
    assert error(best) <= min(error((5.0, 3.0)), error((20.0, 10.0)), error((1.0, 1.0)))


@pytest.mark.parametrize("preset", ["default", pytest.param("multitask", marks=pytest.mark.slow)])
def test_unknown_users_and_candidates_get_the_means(
    preset: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue({"default": "model", "multitask": "multitask"}[preset])
    head = model.rating_head
    assert head is not None
    means = head.means
    user, candidate, both = rated(head, model, [-1, 7, -1], [3, 500, 500])
    assert user == pytest.approx(means.mean + means.candidate_bias[3], abs=1e-5)
    assert candidate == pytest.approx(means.mean + means.user_bias[7], abs=1e-5)
    assert both == pytest.approx(means.mean, abs=1e-5)


def test_ratings_stay_within_those_that_were_given(
    data: Dataset, split: Split, model: TrainedModel
) -> None:
    head = model.rating_head
    assert head is not None
    assert data.ratings is not None
    users, candidates = np.divmod(np.arange(300 * 500, dtype=np.int32), 500)
    queries = model.embed_users(np.arange(300))[:, : model.taste_dimension]
    ratings = head.predict(users, candidates, queries, model.taste_embeddings)
    assert ratings.min() >= data.ratings.min()
    assert ratings.max() <= data.ratings.max()
    assert len(np.unique(ratings)) > 10_000


@pytest.mark.slow
def test_multitask_weights_trade_ratings_for_retrieval(
    data: Dataset, split: Split, multitask: TrainedModel
) -> None:
    """TFRS's retrieval loss is a sum and its rating loss a mean, so 1 and 1 favour retrieval."""
    model_config, config = PRESETS["multitask"]
    even = judge_model(multitask, data, split)
    for_ratings, for_retrieval = (
        judge_model(
            train(
                data,
                split,
                model_config,
                dataclasses.replace(config, batch_size=512, epochs=8, rating_weight=weight),
            ),
            data,
            split,
        )
        for weight in (64.0, 0.0)
    )
    assert even.rating is not None
    assert for_ratings.rating is not None
    assert data.ratings is not None
    assert for_ratings.rating.rmse < data.ratings.std()
    assert for_ratings.rating.rmse < even.rating.rmse < 1.2
    hit_rates = [
        judged.metrics["seen_kept"]["hit_rate@100"] for judged in (even, for_ratings, for_retrieval)
    ]
    assert hit_rates[0] > 0.95 * hit_rates[2] > hit_rates[1]


@pytest.mark.parametrize("preset", ["default", "multitask"])
def test_data_without_ratings_are_refused_before_training(
    data: Dataset, split: Split, preset: str
) -> None:
    without = dataclasses.replace(data, ratings=None)
    model_config, config = PRESETS[preset]
    config = dataclasses.replace(config, rating_weight=1.0)
    with pytest.raises(ValueError, match=r"has no ratings .*--rating-column, or leave"):
        train(without, split, model_config, config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rating_weight": -1.0}, "rating_weight must not be negative, got -1"),
        ({"rating_weight": float("nan")}, "rating_weight must not be negative, got nan"),
        ({"retrieval_weight": 0.5, "rating_weight": 1.0}, "retrieval_weight has an effect only"),
        (
            {"retrieval_weight": 0.5, "loss": "in_batch_softmax"},
            "retrieval_weight has an effect only",
        ),
    ],
)
def test_weights_that_mean_nothing_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)  # type: ignore[arg-type]


def test_command_takes_the_weights() -> None:
    import argparse

    from shortlist.export.cli.options import train_configs

    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    given = ["export", "--preset", "multitask", "--rating-weight", "2", "--retrieval-weight", "0.5"]
    model_config, config = train_configs(parser.parse_args(given), PRESETS["multitask"])
    assert (config.rating_weight, config.retrieval_weight) == (2.0, 0.5)
    assert model_config.embedding_dim == 64
