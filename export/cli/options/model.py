"""Options of training, servables and gates, and how they are read; imports nothing heavy."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from shortlist.clients.cli.output import write_json
from shortlist.clients.contract import DEFAULT_MODEL, DEFAULT_TOP_K, INDEXES
from shortlist.export.config import (
    PRESETS,
    PROTOCOLS,
    QUERY_TOWERS,
    SIMILAR_BY,
    SPLIT_METHODS,
    TARGETS,
    ExportConfig,
    ModelConfig,
    TrainConfig,
)
from shortlist.export.gates.record import GATES
from shortlist.export.gates.settings import GateSettings
from shortlist.serving.servers.kinds import ServerKind

__all__ = [
    "SPLIT_DEFAULT",
    "add_config_arguments",
    "add_gate_arguments",
    "add_model_arguments",
    "add_repository",
    "add_target_argument",
    "add_train_arguments",
    "gate_settings",
    "train_configs",
]

SPLIT_DEFAULT = (
    "(default: leave_last_out if the times order the interactions of at least 100 users, and of "
    "half of those with three or more; otherwise random)"
)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--print-config`, which `run_config` reads."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="configuration file; options override it",
    )
    group.add_argument(
        "--print-config",
        action="store_true",
        help="print the effective configuration as TOML, with all defaults, and stop",
    )
    group.add_argument(
        "--config-schema",
        action=_PrintSchema,
        help="print the JSON Schema of configuration files, for editors, and stop",
    )


class _PrintSchema(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from shortlist.export.cli.options.schema import config_schema

        write_json(config_schema())
        parser.exit()


# --- training -----------------------------------------------------------------------


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `train_configs` reads."""
    group = parser.add_argument_group(
        "training", "options override the preset's values; defaults are those of `default`"
    )
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="recipe: `default` computes queries from users' events, `table` learns one query per "
        "user, `seen_kept` ranks seen candidates last; the others are TFRS's tutorials (default: "
        "default)",
    )
    group.add_argument(
        "--query-tower",
        choices=QUERY_TOWERS,
        help="`history` computes queries from events, `table` looks them up by user (default: "
        f"{ModelConfig.query_tower})",
    )
    for option, default, text in (
        ("--epochs", TrainConfig.epochs, "maximum number of passes over the training part"),
        ("--batch-size", TrainConfig.batch_size, "users per step (interactions for tutorials)"),
        ("--embedding-dim", ModelConfig.embedding_dim, "length of an embedding"),
        (
            "--seen-last-epochs",
            TrainConfig.seen_last_epochs,
            "passes of a second stage that ranks seen candidates last; 0 for none",
        ),
        ("--seed", TrainConfig.seed, "random seed for the split, initial values and order"),
    ):
        group.add_argument(option, type=int, metavar="N", help=f"{text} (default: {default})")
    for option, value, text in (
        ("--learning-rate", TrainConfig.learning_rate, "learning rate of the optimizer"),
        ("--temperature", ModelConfig.temperature, "softmax temperature; lower memorises more"),
        ("--held-out-fraction", TrainConfig.held_out_fraction, "share held out for evaluation"),
        (
            "--validation-fraction",
            TrainConfig.validation_fraction,
            "share held out for early stopping",
        ),
        (
            "--rating-weight",
            TrainConfig.rating_weight,
            "weight of the rating loss; above 0, ratings are predicted, too",
        ),
        (
            "--retrieval-weight",
            TrainConfig.retrieval_weight,
            "weight of the retrieval loss in `multitask`",
        ),
    ):
        group.add_argument(option, type=float, metavar="X", help=f"{text} (default: {value})")
    group.add_argument(
        "--split",
        choices=SPLIT_METHODS,
        help="method of holding out interactions, and thus what training aims at: with "
        "`leave_last_out` and `global_time` the next event, so the order of events is learned; "
        "with the others any interaction " + SPLIT_DEFAULT,
    )
    group.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="how applications ask, without or with the candidates that a user already has; for "
        f"the headline metric and the gate `quality` (default: {TrainConfig.protocol})",
    )
    group.add_argument(
        "--similar",
        choices=SIMILAR_BY,
        help="basis of `similar`: nearby candidate embeddings, or candidates that the same users "
        f"have (default: {TrainConfig.similar})",
    )
    group.add_argument("--tensorboard", type=Path, metavar="DIR", help="folder for TensorBoard")


def train_configs(
    args: argparse.Namespace, base: tuple[ModelConfig, TrainConfig]
) -> tuple[ModelConfig, TrainConfig]:
    """Return the configurations that the options describe.

    Args:
        args: Parsed with `add_train_arguments`.
        base: Values for options not given.

    Raises:
        ValueError: A value is out of range.
    """

    def changes(config: ModelConfig | TrainConfig) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(config)}
        return {
            name: value for name, value in vars(args).items() if name in names and value is not None
        }

    model, train = base
    return (
        dataclasses.replace(model, **changes(model)),
        dataclasses.replace(train, **changes(train)),
    )


# --- servables ----------------------------------------------------------------------


def add_model_arguments(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Add the options of every publication of servables, and return their group."""
    group = parser.add_argument_group("model")
    add_repository(group, created=True)
    group.add_argument(
        "--model",
        metavar="NAME",
        help=f"model name; servables are called NAME_<index> (default: {DEFAULT_MODEL})",
    )
    group.add_argument(
        "--index",
        action="append",
        choices=INDEXES,
        help="index to publish; repeatable (default: all; scann only if it is installed)",
    )
    group.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help=f"candidates per user from serving_default (default: {DEFAULT_TOP_K})",
    )
    group.add_argument(
        "--recall",
        type=float,
        metavar="SHARE",
        help=f"recall@10 to tune approximate indexes to (default: {ExportConfig.recall})",
    )
    add_target_argument(group, note="; checked before anything is built")
    group.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="split each index into N servables, NAME_<index>_<i>of<N>, for a corpus larger than "
        "one machine; ShardedClient asks them (default: 1)",
    )
    group.add_argument(
        "--batching",
        action="store_true",
        help="publish for TensorFlow Serving with --enable_batching: no warm-up requests of "
        "`retrieve` and `retrieve_by_query`, whose scalar k cannot be batched",
    )
    return group


def add_repository(parser: "argparse._ActionsContainer", *, created: bool = False) -> None:
    """Add `--repository`, a folder."""
    note = ", created if missing" if created else ""
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("models"),
        metavar="DIR",
        help=f"model repository{note} (default: %(default)s)",
    )


# --- gates --------------------------------------------------------------------------


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the limits of the gates, which `gate_settings` reads."""
    group = parser.add_argument_group("gates")
    group.add_argument(
        "--allow",
        action="append",
        choices=GATES,
        metavar="GATE",
        help="gate whose failure is only recorded; repeatable. Gates: " + ", ".join(GATES),
    )
    group.add_argument(
        "--gates",
        choices=("all", "quick"),
        help="quick leaves out recall, quality and latency, which take the longest (default: all)",
    )
    group.add_argument(
        "--gate-server",
        choices=[kind.value for kind in ServerKind],
        help=f"server in which the gate `server` loads it (default: {GateSettings.server})",
    )
    for option, text in (
        ("--min-recall", "minimum recall@10 against brute force"),
        ("--max-quality-drop", "maximum drop of the headline metric, as a share of the live one's"),
        ("--max-size-change", "maximum change of the corpus size, as a share of the live one"),
        ("--max-lost", "maximum share of the live corpus that is missing"),
        ("--max-latency-ratio", "maximum p99 as a multiple of the live version's"),
        ("--load-timeout", "startup timeout of the server in seconds"),
    ):
        default = getattr(GateSettings, option.removeprefix("--").replace("-", "_"))
        group.add_argument(
            option, type=float, metavar="NUMBER", help=f"{text} (default: {default:g})"
        )
    group.add_argument("--max-hit-rate-drop", type=_renamed, help=argparse.SUPPRESS)
    group.add_argument(
        "--max-memory-mib",
        type=int,
        metavar="MIB",
        help="maximum resident size of the server "
        f"(default: {GateSettings.max_memory_bytes // 2**20})",
    )
    group.add_argument(
        "--target-producer",
        type=int,
        metavar="N",
        help="newest graph format that the target server reads (default: that of the installed "
        "TensorFlow)",
    )


def add_target_argument(parser: "argparse._ActionsContainer", *, note: str) -> None:
    """Add `--target`; `note` ends its help."""
    parser.add_argument(
        "--target",
        choices=TARGETS,
        help=f"server that must have the ops of the servables{note}",
    )


def _renamed(value: str) -> NoReturn:
    raise argparse.ArgumentTypeError(
        f"got {value}; it is now --max-quality-drop, a share of the live version's hit rate"
    )


def gate_settings(args: argparse.Namespace, base: GateSettings | None = None) -> GateSettings:
    """Return the limits that the options describe.

    Args:
        args: Parsed with `add_gate_arguments`.
        base: Limits for options not given; `None` for the defaults.

    Raises:
        ValueError: A limit is out of range.
    """
    values = {
        "server": None if args.gate_server is None else ServerKind(args.gate_server),
        "target": args.target,
        "target_producer": args.target_producer,
        "min_recall": args.min_recall,
        "max_quality_drop": args.max_quality_drop,
        "max_size_change": args.max_size_change,
        "max_lost": args.max_lost,
        "max_latency_ratio": args.max_latency_ratio,
        "load_timeout": args.load_timeout,
        "max_memory_bytes": None if args.max_memory_mib is None else args.max_memory_mib * 2**20,
        "quick": None if args.gates is None else args.gates == "quick",
        "allow": None if args.allow is None else frozenset(args.allow),
    }
    changes: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(base or GateSettings(), **changes)
