"""Trains the two towers by the configured recipe."""

import dataclasses
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from shortlist.export._tf import tf
from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.progress import Progress
from shortlist.export.towers.rating_means import ratings_of
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.checkpoint import Checkpoint, CheckpointConfig, data_fingerprint
from shortlist.export.training.co_interactions import co_interactions, fit_queries
from shortlist.export.training.in_batch_softmax import train_on_interactions
from shortlist.export.training.rating_head import fit_linear_head
from shortlist.export.training.states.warm_start import (
    TASTE_PART,
    WarmStart,
    WarmStartError,
)
from shortlist.export.training.user_recipe import score_on_users, train_on_users
from shortlist.export.training.workers import Workers

__all__ = ["train", "validation_score"]

# Errors of a collective operation that lost one of its processes.
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
    warm_start: WarmStart | None = None,
    state: Path | None = None,
) -> TrainedModel:
    """Train a model on all interactions but the held-out ones.

    The same data, configuration and seed give the same model on the same machine, even if the
    training was interrupted and resumed from a checkpoint. All workers end with the same model,
    equal to that of a single process except for the order of additions.

    Args:
        dataset: Interactions and candidates.
        split: Parts of the interactions.
        model_config: Shape of the towers.
        config: Training configuration.
        progress: Callback, called for each training batch.
        checkpoints: Checkpoint configuration; None for no checkpoints.
        workers: Processes of this training, each of which calls this function; None for this
            one alone.
        warm_start: Earlier training to start from; None for random values.
        state: Folder to leave the state of this training in; None to leave none.

    Raises:
        CheckpointError: The checkpoint belongs to another training, or cannot be read or
            written.
        ValueError: The loss is no longer finite; or the rating head needs ratings and the data
            has none.
        WarmStartError: The earlier training knows what is held out now, its state cannot be read,
            or the new one cannot be written.
    """
    if warm_start is not None:
        if workers is not None and workers.count > 1:
            raise WarmStartError("a warm start trains in one process; unset TF_CONFIG")
        warm_start.check_split(dataset, split, config)
    if config.rating_weight:
        ratings_of(dataset)  # fails early, not after hours of training
    checkpoint = None
    if checkpoints is not None:
        identity = _identity(dataset, split, model_config, config)
        identity["workers"] = 1 if workers is None else workers.count
        if warm_start is not None:
            identity["warm_start"] = warm_start.name
        checkpoint = Checkpoint(checkpoints, identity)
    recipe: Callable[..., TrainedModel] = train_on_interactions
    if workers is not None and not workers.is_chief:
        config = dataclasses.replace(config, tensorboard=None)
    try:
        with tempfile.TemporaryDirectory(prefix="shortlist-") as temporary:
            if state is not None and not (checkpoints and checkpoints.resume):
                (state / TASTE_PART).unlink(missing_ok=True)  # of another training
            if warm_start is not None and state is None:
                state = Path(temporary)  # that the final model starts from
            if config.loss == "user_softmax":
                recipe = partial(train_on_users, warm_start=warm_start, state=state)
            model = recipe(
                dataset, split, model_config, config, progress or Progress(), checkpoint, workers
            )
    except _LOST as exc:
        if workers is None or workers.count == 1:
            raise
        raise ValueError(
            f"worker {workers.index} of {workers.count} lost another worker during training; "
            "restart all of them, with --resume to continue"
        ) from exc
    losses = ", ".join(f"{record.loss:.3f}" for record in model.records)
    log.info("loss by epoch: %s", losses)
    return _with_heads(model, dataset, split, config)


def validation_score(
    dataset: Dataset,
    split: Split,
    model_config: ModelConfig,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
) -> float:
    """Return the quality of a configuration on the validation part.

    Trains on the training part alone, with early stopping; nothing of the held-out part is used.

    Args:
        dataset: Interactions and candidates.
        split: Parts of the interactions.
        model_config: Shape of the towers.
        config: Training configuration.
        progress: Callback, called for each training batch.

    Returns:
        Mean of NDCG@10 and NDCG@100, seen candidates excluded.

    Raises:
        ValueError: The loss is no longer finite, there is no validation part, or the recipe has
            none.
    """
    if config.loss != "user_softmax":
        raise ValueError(f"{config.loss} is not measured on a validation part; use user_softmax")
    if not len(split.validation):
        raise ValueError("there is no validation part; raise validation_fraction, or use more data")
    return score_on_users(dataset, split, model_config, config, progress or Progress())


def _with_heads(
    model: TrainedModel, dataset: Dataset, split: Split, config: TrainConfig
) -> TrainedModel:
    """Return the model with everything that is fitted to its finished towers."""
    if config.rating_weight and model.rating_head is None:
        head = fit_linear_head(dataset, split, model.taste_embeddings)
        model = dataclasses.replace(model, rating_head=head)
    if config.similar == "co_interactions":
        pairs = co_interactions(dataset, split.fitted, seed=config.seed)
        queries = fit_queries(pairs, model.taste_embeddings, seed=config.seed)
        model = dataclasses.replace(model, similar_queries=queries)
    return model


def _identity(
    dataset: Dataset, split: Split, model_config: ModelConfig, config: TrainConfig
) -> dict[str, Any]:
    """Values that must be equal for one training to resume another."""
    settings = {**dataclasses.asdict(config), "split": split.method}
    del settings["tensorboard"]  # does not change the result
    return {
        "towers": dataclasses.asdict(model_config),
        "train": settings,
        "data": {"name": dataset.name, "fingerprint": data_fingerprint(dataset, split)},
        "tensorflow": tf.__version__,
    }
