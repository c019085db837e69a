"""Trains the two towers by the recipe that the configuration names."""

import dataclasses
import logging
from typing import Any

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.ratings import ratings_of
from shortlist.export.data.split import Split
from shortlist.export.progress import Progress
from shortlist.export.towers.rating_head import fit_linear_head
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.batches import train_on_interactions
from shortlist.export.training.checkpoint import Checkpoint, CheckpointConfig, data_fingerprint
from shortlist.export.training.co_interactions import co_interactions, fit_queries
from shortlist.export.training.users import train_on_users
from shortlist.export.training.workers import Workers

__all__ = ["train"]

# What a collective operation ends with when one of its processes is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError)

log = logging.getLogger(__name__)


def train(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
    checkpoints: CheckpointConfig | None = None,
    workers: Workers | None = None,
) -> TrainedModel:
    """A model that knows all of `split` but its held-out part.

    The same data, configuration and seed give the same model on the same machine, even
    when the training was interrupted and went on from a checkpoint. Several workers end
    with the same model each, equal to that of one up to the order of additions.

    Args:
        dataset: The interactions.
        split: Which of them are trained on.
        model_config: Shape of the towers.
        config: How they are trained.
        progress: Told of batches.
        checkpoints: Where an interrupted training can go on from; None for nowhere.
        workers: The processes that train, each of which calls this; None for this one alone.

    Raises:
        CheckpointError: The checkpoint to go on from is of another training, or cannot be
            read or written.
        ValueError: The loss stopped being a number; ratings are to be predicted and the data
            has none.
    """
    if config.rating_weight:
        ratings_of(dataset)  # told before hours of training
    checkpoint = None
    if checkpoints is not None:
        identity = _identity(dataset, split, model_config, config)
        identity["workers"] = 1 if workers is None else workers.count
        checkpoint = Checkpoint(checkpoints, identity)
    recipe = train_on_users if config.loss == "user_softmax" else train_on_interactions
    if workers is not None and not workers.is_chief:
        config = dataclasses.replace(config, tensorboard=None)
    try:
        model = recipe(
            dataset, split, model_config, config, progress or Progress(), checkpoint, workers
        )
    except _LOST as exc:
        if workers is None or workers.count == 1:
            raise
        raise ValueError(
            f"worker {workers.index} of {workers.count} lost another one while training; "
            "start all of them again, with --resume to go on"
        ) from exc
    losses = ", ".join(f"{record.loss:.3f}" for record in model.records)
    log.info("loss by epoch: %s", losses)
    return _with_heads(model, dataset, split, config)


def _with_heads(
    model: TrainedModel, dataset: Dataset, split: Split, config: TrainConfig
) -> TrainedModel:
    """The model with what is fitted to its finished towers."""
    if config.rating_weight and model.rating_head is None:
        head = fit_linear_head(dataset, split, model.candidate_embeddings)
        model = dataclasses.replace(model, rating_head=head)
    if config.similar == "co_interactions":
        pairs = co_interactions(dataset, split.fitted, seed=config.seed)
        queries = fit_queries(pairs, model.candidate_embeddings, seed=config.seed)
        model = dataclasses.replace(model, similar_queries=queries)
    return model


def _identity(
    dataset: Dataset, split: Split, model_config: ModelConfig, config: TrainConfig
) -> dict[str, Any]:
    """What two trainings have in common that one may go on for the other."""
    settings = dataclasses.asdict(config)
    del settings["tensorboard"]  # changes nothing of the outcome
    return {
        "towers": dataclasses.asdict(model_config),
        "train": settings,
        "data": {"name": dataset.name, "fingerprint": data_fingerprint(dataset, split)},
        "tensorflow": tf.__version__,
    }
