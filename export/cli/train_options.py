"""The training options of the command; imports nothing heavy."""

import argparse
import dataclasses
from pathlib import Path

from shortlist.export.config import PRESETS, SIMILAR_BY, SPLIT_METHODS, ModelConfig, TrainConfig

__all__ = ["add_train_arguments", "train_configs"]


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how to train; `train_configs` reads them back."""
    group = parser.add_argument_group(
        "training", "options override the preset's values; those of `default` are shown"
    )
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="recipe: `default` is best with seen candidates excluded, `seen_kept` with them "
        "kept; the others are TFRS's tutorials (default: default)",
    )
    for option, default, text in (
        ("--epochs", TrainConfig.epochs, "passes over the training part, at most"),
        ("--batch-size", TrainConfig.batch_size, "users per step (interactions, for tutorials)"),
        ("--embedding-dim", ModelConfig.embedding_dim, "length of an embedding"),
        (
            "--seen-last-epochs",
            TrainConfig.seen_last_epochs,
            "passes of a second stage that ranks last what a user has; 0 for none",
        ),
        ("--seed", TrainConfig.seed, "seed of split, initial values and order"),
    ):
        group.add_argument(option, type=int, metavar="N", help=f"{text} (default: {default})")
    for option, value, text in (
        ("--learning-rate", TrainConfig.learning_rate, "of the optimizer"),
        ("--temperature", ModelConfig.temperature, "of the cosines; lower memorises more"),
        ("--held-out-fraction", TrainConfig.held_out_fraction, "share that judges the model"),
        ("--validation-fraction", TrainConfig.validation_fraction, "share that stops training"),
        ("--rating-weight", TrainConfig.rating_weight, "above 0: predict ratings, too"),
        ("--retrieval-weight", TrainConfig.retrieval_weight, "beside it, with `multitask`"),
    ):
        group.add_argument(option, type=float, metavar="X", help=f"{text} (default: {value})")
    group.add_argument(
        "--split",
        choices=SPLIT_METHODS,
        help=f"how to hold interactions out (default: {TrainConfig.split})",
    )
    group.add_argument(
        "--similar",
        choices=SIMILAR_BY,
        help="what `similar` goes by: near candidate embeddings, or what users have beside a "
        f"candidate (default: {TrainConfig.similar})",
    )
    group.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write TensorBoard's event files there"
    )


def train_configs(
    args: argparse.Namespace, base: tuple[ModelConfig, TrainConfig]
) -> tuple[ModelConfig, TrainConfig]:
    """Configurations that the options describe.

    Args:
        args: Parsed with `add_train_arguments`.
        base: What holds where no option was given.

    Raises:
        ValueError: A value is out of range.
    """
    model, train = base
    given = {name: value for name, value in vars(args).items() if value is not None}

    def changes(config: ModelConfig | TrainConfig) -> dict[str, object]:
        names = {field.name for field in dataclasses.fields(config)}
        return {name: value for name, value in given.items() if name in names}

    return (
        dataclasses.replace(model, **changes(model)),  # type: ignore[arg-type]
        dataclasses.replace(train, **changes(train)),  # type: ignore[arg-type]
    )
