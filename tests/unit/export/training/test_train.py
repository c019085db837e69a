"""Training: it learns, stops by the validation part, repeats itself and serves unknown users."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import PRESETS, ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.split import Split, make_split
from shortlist.export.progress import Progress
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.train import train, validation_score
from shortlist.export.training.user_recipe import train_on_users
from tests.support.evaluation import evaluate_popularity, evaluate_users, inner_products

MODEL = ModelConfig(embedding_dim=16, query_tower="table")
TRAIN = TrainConfig(epochs=12, batch_size=64, learning_rate=0.03)


def queries_of(model: TrainedModel, data: Dataset) -> npt.NDArray[np.float32]:
    return model.embed_users(np.arange(len(data.user_ids)))


def unknown_query(model: TrainedModel) -> npt.NDArray[np.float32]:
    """Query of a user of whom nothing is known."""
    return model.embed_users(np.array([-1]))[0]


def hit_rate(model: TrainedModel, data: Dataset, split: Split) -> float:
    scores = inner_products(queries_of(model, data), model.candidate_embeddings)
    return evaluate_users(scores, data, split, ks=[10]).metrics["seen_excluded"]["hit_rate@10"]


def test_default_recipe_beats_popularity(data: Dataset, split: Split, model: TrainedModel) -> None:
    rate = evaluate_popularity(data, split, ks=[10]).metrics["seen_excluded"]["hit_rate@10"]
    assert hit_rate(model, data, split) > 1.3 * rate


@pytest.mark.slow
def test_sampled_negatives_learn_about_as_much(
    data: Dataset, split: Split, model: TrainedModel
) -> None:
    config = dataclasses.replace(TRAIN, sampled_candidates=200)
    sampled = train(data, split, MODEL, config)
    assert hit_rate(sampled, data, split) > 0.8 * hit_rate(model, data, split)


@pytest.mark.slow
def test_same_seed_gives_the_same_model(data: Dataset, split: Split, model: TrainedModel) -> None:
    again = train(data, split, MODEL, TRAIN)
    np.testing.assert_array_equal(queries_of(again, data), queries_of(model, data))
    np.testing.assert_array_equal(again.candidate_embeddings, model.candidate_embeddings)


def test_epochs_are_those_of_the_best_look_at_the_validation_part(model: TrainedModel) -> None:
    looks = {r.epoch: r.validation for r in model.records if r.validation is not None}
    assert model.epochs == max(looks, key=lambda epoch: looks[epoch])
    assert model.records[-1].loss < model.records[0].loss


@pytest.mark.slow
def test_patience_ends_training_that_gets_no_better(data: Dataset, split: Split) -> None:
    """With a rate this high the model overfits at once; it is validated after each epoch."""
    config = dataclasses.replace(TRAIN, epochs=40, learning_rate=0.3, patience=2)
    model = train_on_users(data, split, MODEL, config, Progress(), steps_between_looks=1)
    assert len(model.records) < 40
    assert model.epochs == len(model.records) - 2


def test_the_validation_score_knows_nothing_of_the_held_out_part(
    data: Dataset, split: Split
) -> None:
    config = dataclasses.replace(TRAIN, epochs=2)
    blind = dataclasses.replace(split, held_out=split.held_out[:1])
    score = validation_score(data, split, MODEL, config)
    assert score == validation_score(data, blind, MODEL, config) > 0
    with pytest.raises(ValueError, match="no validation part"):
        validation_score(data, make_split(data, held_out_fraction=0.2, seed=1), MODEL, config)
    with pytest.raises(ValueError, match="use user_softmax"):
        validation_score(data, split, *PRESETS["tutorial"])


def test_without_validation_part_all_epochs_are_trained(data: Dataset) -> None:
    whole = make_split(data, held_out_fraction=0.2, seed=1)
    model = train(data, whole, MODEL, dataclasses.replace(TRAIN, epochs=2))
    assert model.epochs == 2
    assert [record.validation for record in model.records] == [None, None]


def test_unknown_user_gets_popular_candidates(
    data: Dataset, split: Split, model: TrainedModel
) -> None:
    best = np.argsort(-(model.candidate_embeddings @ unknown_query(model)))[:10]
    counts = np.bincount(data.candidate_positions[split.fitted], minlength=500)
    assert counts[best].mean() > 3 * counts.mean()
    assert model.query_tower.positions(tf.constant(["nobody", "1"])).numpy().tolist() == [-1, 0]


def test_user_whom_training_never_saw_is_unknown(data: Dataset, split: Split) -> None:
    without = Split(
        training=split.fitted[data.user_positions[split.fitted] != 5], held_out=split.held_out
    )
    model = train(data, without, MODEL, dataclasses.replace(TRAIN, epochs=1))
    ids = tf.constant([data.user_ids[5], "nobody"])
    assert model.query_tower.positions(ids).numpy().tolist() == [-1, -1]
    np.testing.assert_array_equal(model.embed_users(np.array([5]))[0], unknown_query(model))


def test_kept_events_give_the_queries_of_whole_histories(
    data: Dataset, split: Split, model: TrainedModel
) -> None:
    users = np.array([7, 0, 299])
    histories = Histories.of_users(data, split.fitted).take(users)
    np.testing.assert_allclose(
        model.embed(users, histories), model.embed_users(users), rtol=1e-4, atol=1e-5
    )


def test_candidates_have_unit_length_where_cosines_are_meant(model: TrainedModel) -> None:
    """The queries carry the temperature, so candidates compare with each other by cosines."""
    lengths = np.linalg.norm(model.candidate_embeddings[:, :8], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    others = np.sum(model.candidate_embeddings[:, 8:] ** 2, axis=1)
    assert np.mean(others) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("preset", ["tutorial", "overview"])
def test_presets_of_the_tutorials_train(data: Dataset, preset: str) -> None:
    model_config, config = PRESETS[preset]
    whole = make_split(data, held_out_fraction=0.2, seed=1)
    model = train(data, whole, model_config, dataclasses.replace(config, epochs=4))
    assert model.candidate_embeddings.shape == (500, model_config.embedding_dim)
    assert model.records[-1].loss < model.records[0].loss
    counts = np.bincount(data.candidate_positions[whole.training], minlength=500)
    best = np.argsort(-(model.candidate_embeddings @ unknown_query(model)))[:10]
    assert counts[best].mean() > 2 * counts.mean()


@pytest.mark.parametrize("loss", ["user_softmax", "in_batch_softmax"])
def test_divergence_is_reported(data: Dataset, split: Split, loss: str) -> None:
    config = dataclasses.replace(
        TRAIN,
        loss=loss,  # type: ignore[arg-type]
        optimizer="adam",
        learning_rate=1e38,
        epochs=3,
    )
    with pytest.raises(ValueError, match=r"training diverged: loss .*; lower learning_rate"):
        train(data, split, MODEL, config)


@pytest.mark.slow
def test_tensorboard_gets_loss_and_validation(
    data: Dataset, split: Split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(TRAIN, epochs=2, tensorboard=tmp_path)
    with caplog.at_level(logging.INFO):
        train(data, split, MODEL, config)
    tags = {
        value.tag
        for file in tmp_path.rglob("*tfevents*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"loss", "validation_ndcg@100"} <= tags
    assert "loss by epoch" in caplog.text
