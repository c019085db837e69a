"""Options that several verbs of `export` share, and how they are read; imports nothing heavy."""

from shortlist.export.cli.options.data import (
    add_data_arguments,
    add_reading_arguments,
    data_config,
)
from shortlist.export.cli.options.model import (
    SPLIT_DEFAULT,
    add_config_arguments,
    add_gate_arguments,
    add_model_arguments,
    add_repository,
    add_target_argument,
    add_train_arguments,
    gate_settings,
    train_configs,
)

__all__ = [
    "SPLIT_DEFAULT",
    "add_config_arguments",
    "add_data_arguments",
    "add_gate_arguments",
    "add_model_arguments",
    "add_reading_arguments",
    "add_repository",
    "add_target_argument",
    "add_train_arguments",
    "data_config",
    "gate_settings",
    "train_configs",
]
