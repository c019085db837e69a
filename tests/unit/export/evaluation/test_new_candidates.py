"""New candidates without interactions: their features say which users they suit."""

import numpy as np
import pytest

from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Attribute, Dataset
from shortlist.export.data.split import Split
from shortlist.export.training.train import train

NUM_USERS, PER_GENRE, NEW = 80, 50, 5
GENRES = ("Comedy", "Horror")
NUM_CANDIDATES = len(GENRES) * PER_GENRE


def two_tastes(*, features: bool = True, new_genre: str | None = None) -> Dataset:
    """Even users like comedies, odd ones horror; the last of each genre are new."""
    random = np.random.default_rng(5)
    genre_of = np.repeat([0, 1], PER_GENRE)
    old = np.tile(np.arange(PER_GENRE) < PER_GENRE - NEW, len(GENRES))
    users, candidates = [], []
    for user in range(NUM_USERS):
        liked = random.choice(np.flatnonzero(old & (genre_of == user % 2)), 12, replace=False)
        users += [user] * 12
        candidates += liked.tolist()
    genres = tuple(
        (GENRES[genre] if known or new_genre is None else new_genre,)
        for genre, known in zip(genre_of, old, strict=True)
    )
    return Dataset(
        name="two tastes",
        user_ids=tuple(f"u{user}" for user in range(NUM_USERS)),
        candidate_ids=tuple(f"c{number}" for number in range(NUM_CANDIDATES)),
        user_positions=np.array(users, np.int32),
        candidate_positions=np.array(candidates, np.int32),
        titles=tuple(f"c{number}" for number in range(NUM_CANDIDATES)),
        attributes={"genre": Attribute(values=genres)} if features else {},
    )


def trained_scores(dataset: Dataset, sampled: int | None = None) -> np.ndarray:
    everything = np.arange(dataset.num_interactions)
    split = Split(training=everything, held_out=everything[:1])
    config = TrainConfig(epochs=15, batch_size=16, learning_rate=0.05, sampled_candidates=sampled)
    model = train(dataset, split, ModelConfig(embedding_dim=8, query_tower="table"), config)
    queries = model.embed_users(np.arange(NUM_USERS))
    scores: np.ndarray = queries @ model.candidate_embeddings.T
    return scores


@pytest.mark.parametrize("sampled", [None, 40])
def test_a_new_candidate_suits_users_who_like_its_genre(sampled: int | None) -> None:
    scores = trained_scores(two_tastes(), sampled)
    comedies = scores[:, PER_GENRE - NEW : PER_GENRE]
    horrors = scores[:, -NEW:]
    for users, liked, other in (
        (slice(0, None, 2), comedies, horrors),
        (slice(1, None, 2), horrors, comedies),
    ):
        above = liked[users][:, :, None] > other[users][:, None, :]
        assert above.mean() > 0.9


@pytest.mark.parametrize(
    "dataset", [two_tastes(features=False), two_tastes(new_genre="Unheard of")], ids=["none", "new"]
)
def test_a_new_candidate_without_features_that_say_anything_comes_last(dataset: Dataset) -> None:
    """No data speaks for it, and it is a negative for all users."""
    scores = trained_scores(dataset)
    new = scores[:, [*range(PER_GENRE - NEW, PER_GENRE), *range(-NEW, 0)]]
    own = np.where(np.arange(NUM_USERS) % 2 == 0, 0, PER_GENRE)
    liked = np.array([scores[u, own[u] : own[u] + PER_GENRE - NEW].mean() for u in range(80)])
    assert (new.mean(axis=1) < liked).all()
    assert np.isfinite(scores).all()
    assert (np.abs(new).max(axis=0) > 1e-3).all()  # gates reject an embedding of zeros
