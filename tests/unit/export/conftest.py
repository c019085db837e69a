"""Data that is large enough to learn from, and a model trained on it, once per run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shortlist.export.data.dataset import Dataset
    from shortlist.export.data.split import Split
    from shortlist.export.towers.trained import TrainedModel


@pytest.fixture(scope="session")
def data() -> Dataset:
    """300 users, 500 candidates and 15,000 interactions."""
    from shortlist.export.data import DataConfig, load

    return load(
        DataConfig(
            source="sample", sample_users=300, sample_candidates=500, sample_interactions=15_000
        )
    )


@pytest.fixture(scope="session")
def split(data: Dataset) -> Split:
    from shortlist.export.data.split import make_split

    return make_split(data, held_out_fraction=0.2, seed=1, validation_fraction=0.1)


@pytest.fixture(scope="session")
def model(data: Dataset, split: Split) -> TrainedModel:
    """The default recipe, with a rating head, which leaves the towers as they are without it."""
    from shortlist.export.config import ModelConfig, TrainConfig
    from shortlist.export.training.train import train

    config = TrainConfig(epochs=12, batch_size=64, learning_rate=0.03, rating_weight=1.0)
    return train(data, split, ModelConfig(embedding_dim=16, query_tower="table"), config)
