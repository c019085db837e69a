"""Options that the verbs with gates share, and what they mean."""

import argparse
from dataclasses import replace
from typing import Any

from shortlist.export.gates.record import GATES
from shortlist.export.gates.settings import GateSettings
from shortlist.serving.servers.kinds import ServerKind

__all__ = ["add_gate_arguments", "gate_settings"]


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the limits of the gates; defaults are those of `GateSettings`."""
    group = parser.add_argument_group("gates")
    group.add_argument(
        "--allow",
        action="append",
        choices=GATES,
        metavar="GATE",
        help="record the failure of this gate and go on; may be given again. Gates: "
        + ", ".join(GATES),
    )
    group.add_argument(
        "--gate-server",
        choices=[kind.value for kind in ServerKind],
        help=f"what the gate `server` loads it in (default: {GateSettings.server})",
    )
    for option, what in (
        ("--min-recall", "least recall@10 against brute force"),
        ("--max-hit-rate-drop", "how much lower than the live version's the hit rate@10 may be"),
        ("--max-size-change", "largest change of the corpus, as a share of the live one"),
        ("--max-lost", "largest share of the live corpus that may be gone"),
        ("--max-latency-ratio", "largest p99 as a multiple of the live version's"),
        ("--load-timeout", "seconds for the server to load everything"),
    ):
        default = getattr(GateSettings, option.removeprefix("--").replace("-", "_"))
        group.add_argument(
            option, type=float, metavar="NUMBER", help=f"{what} (default: {default:g})"
        )
    group.add_argument(
        "--max-memory-mib",
        type=int,
        metavar="MIB",
        help="largest resident size of the server "
        f"(default: {GateSettings.max_memory_bytes // 2**20})",
    )
    group.add_argument(
        "--target-producer",
        type=int,
        metavar="N",
        help="newest graph format that the target server reads (default: that of the "
        "TensorFlow installed here)",
    )


def gate_settings(args: argparse.Namespace, base: GateSettings | None = None) -> GateSettings:
    """Limits that the options describe.

    Args:
        args: Parsed with `add_gate_arguments`.
        base: What holds where no option was given; None for the defaults.

    Raises:
        ValueError: A limit makes no sense.
    """
    given = {
        "server": None if args.gate_server is None else ServerKind(args.gate_server),
        "target_producer": args.target_producer,
        "min_recall": args.min_recall,
        "max_hit_rate_drop": args.max_hit_rate_drop,
        "max_size_change": args.max_size_change,
        "max_lost": args.max_lost,
        "max_latency_ratio": args.max_latency_ratio,
        "load_timeout": args.load_timeout,
        "max_memory_bytes": None if args.max_memory_mib is None else args.max_memory_mib * 2**20,
        "allow": None if args.allow is None else frozenset(args.allow),
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(base or GateSettings(), **changes)
