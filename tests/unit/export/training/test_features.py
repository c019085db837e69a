"""Features from the files to the query tower."""

from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data import DataConfig, Dataset, load
from shortlist.export.data.split import make_split
from shortlist.export.towers.events import Request
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.train import train

NUM_USERS, PER_USER, PER_COUNTRY = 700, 8, 20
COUNTRIES = ("de", "en", "nl")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Listeners who prefer songs of their country, and mostly its first ones by phone."""
    random = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("songs")
    users, plays = ["user_id,country"], ["user_id,candidate_id,device"]
    for user in range(NUM_USERS):
        country = COUNTRIES[random.integers(0, 3)]
        users.append(f"u{user},{country}")
        for _ in range(PER_USER):
            phone = random.integers(0, 2)
            song = random.integers(0, 10) + (0 if phone else 10)
            other = COUNTRIES[random.integers(0, 3)] if random.random() < 0.2 else country
            plays.append(f"u{user},{other}{song:02},{'phone' if phone else 'desktop'}")
    folder.joinpath("users.csv").write_text("\n".join(users))
    folder.joinpath("plays.csv").write_text("\n".join(plays))
    return load(
        DataConfig(
            source=str(folder / "plays.csv"),
            users_file=str(folder / "users.csv"),
            context_columns=("device",),
        )
    )


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> TrainedModel:
    config = TrainConfig(epochs=4, batch_size=64, learning_rate=0.03, validation_fraction=0.0)
    split = make_split(dataset, held_out_fraction=0.2, seed=1)
    return train(dataset, split, ModelConfig(embedding_dim=16), config)


def best(
    model: TrainedModel, dataset: Dataset, features: list[str], *, user: int = -1, k: int = 10
) -> list[str]:
    """Candidates for a request of one user without a history."""
    request = Request(
        positions=tf.zeros([1, 0], tf.int32),
        ages=tf.zeros([1, 0]),
        weights=tf.zeros([1, 0]),
        features=tf.constant([features], tf.string, shape=[1, len(features)]),
    )
    embed = partial(tf.gather, tf.constant(model.candidate_embeddings))
    query: npt.NDArray[np.float32] = model.query_tower(
        embed, tf.constant([user], tf.int64), request
    ).numpy()[0]
    order = np.argsort(-(model.candidate_embeddings @ query), kind="stable")
    return [dataset.candidate_ids[position] for position in order[:k]]


@pytest.mark.slow
def test_unknown_user_with_features_alone_gets_a_list_shaped_by_them(
    model: TrainedModel, dataset: Dataset
) -> None:
    assert sorted(model.features["country"]) == list(COUNTRIES)
    assert sorted(model.features["device"]) == ["desktop", "phone"]
    for country in COUNTRIES:
        shaped = best(model, dataset, [f"country={country}"])
        assert sum(song.startswith(country) for song in shaped) >= 8
    by_phone = best(model, dataset, ["device=phone", "country=en"])
    assert sum("en00" <= song < "en10" for song in by_phone) >= 8


def test_missing_and_unknown_features_are_no_surprise(
    model: TrainedModel, dataset: Dataset
) -> None:
    nothing = best(model, dataset, [])
    assert best(model, dataset, ["", "city=Delft", "country=be"]) == nothing
    some = best(model, dataset, ["country=nl", "device=tablet"])
    assert some == best(model, dataset, ["country=nl"])


def test_features_count_no_more_than_chosen_for_users_with_events(
    model: TrainedModel, dataset: Dataset
) -> None:
    """Without a validation part, they do not count at all."""
    assert model.settings["feature_share"] == 0.0
    assert best(model, dataset, ["country=nl"], user=3) == best(model, dataset, [], user=3)
