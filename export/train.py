"""Trains the two towers by the recipe that the configuration names."""

import logging

from export.config import ModelConfig, TrainConfig
from export.data.dataset import Dataset
from export.progress import Progress
from export.split import Split
from export.train_batches import train_on_interactions
from export.train_users import train_on_users
from export.trained import TrainedModel

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
) -> TrainedModel:
    """A model that knows all of `split` but its held-out part.

    The same data, configuration and seed give the same model on the same machine.

    Raises:
        ValueError: The loss stopped being a number.
    """
    recipe = train_on_users if config.loss == "user_softmax" else train_on_interactions
    model = recipe(dataset, split, model_config, config, progress or Progress())
    losses = ", ".join(f"{record.loss:.3f}" for record in model.records)
    log.info("loss by epoch: %s", losses)
    return model
