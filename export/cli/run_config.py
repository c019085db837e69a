"""The whole configuration of a command: preset, then file, then options."""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortlist.export.cli.gate_options import gate_settings
from shortlist.export.cli.toml_file import apply, check_keys, keys_of, read_toml, table_lines
from shortlist.export.cli.train_options import train_configs
from shortlist.export.config import PRESETS, ExportConfig
from shortlist.export.data.config import DataConfig
from shortlist.export.data.options import data_config
from shortlist.export.gates.settings import GateSettings

__all__ = ["RunConfig", "add_config_arguments", "as_toml", "from_file", "run_config"]

_OWN_TABLES = ("data", "gates")
_HEAD = (
    "# Effective configuration of `shortlist export`; give it back with --config FILE.",
    '# An empty string leaves a key unset where that is possible, as in num_leaves = "".',
    "",
    "# Recipe whose values hold where this file says nothing: " + ", ".join(PRESETS) + ".",
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a command can be told by a file.

    Attributes:
        preset: Name of the recipe that the values started from.
        export: Model, training and indexes; its values stand at the top of a file, the
            dataclasses in it are tables.
        data: What to read.
        gates: What a version must pass.
    """

    preset: str = "default"
    export: ExportConfig = field(default_factory=ExportConfig)
    data: DataConfig = field(default_factory=DataConfig)
    gates: GateSettings = field(default_factory=GateSettings)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config` and `--print-config`."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="read the configuration from a file; options override it",
    )
    group.add_argument(
        "--print-config",
        action="store_true",
        help="print the effective configuration as TOML, every default included, and stop",
    )


def run_config(args: argparse.Namespace) -> RunConfig:
    """What the options say, on top of the file, on top of the preset.

    Raises:
        ValueError: An unknown key, a wrong type, a value out of range.
    """
    path: Path | None = args.config
    base = from_file(path, preset=args.preset)
    export = base.export
    towers, train = train_configs(args, (export.towers, export.train))
    given = {
        "model": getattr(args, "model", None),
        "indexes": tuple(getattr(args, "index", None) or ()) or None,
        "top_k": getattr(args, "top_k", None),
        "recall": getattr(args, "recall", None),
        "target": getattr(args, "target", None),
        "keep_seen": False if getattr(args, "without_seen", False) else None,
        "batching": getattr(args, "batching", False) or None,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    gates = gate_settings(args, base.gates) if hasattr(args, "gate_server") else base.gates
    return RunConfig(
        preset=base.preset,
        export=dataclasses.replace(export, towers=towers, train=train, **changes),
        data=data_config(args, **vars(base.data)),
        gates=gates,
    )


def from_file(path: Path | None, *, preset: str | None = None) -> RunConfig:
    """What a file says on top of a preset.

    Args:
        path: TOML; None for the preset alone.
        preset: Its name; None for the one that the file names, or `default`.

    Raises:
        ValueError: One line that names file, key, and the nearest known key.
    """
    if path is None:
        return _on_preset({}, preset)
    values = read_toml(path)
    try:
        return _on_preset(values, preset)
    except ValueError as exc:
        raise ValueError(f"{path}: {exc}") from exc


def _on_preset(values: Mapping[str, Any], preset: str | None) -> RunConfig:
    tables = [*_tables(ExportConfig), *_OWN_TABLES]
    known = ["preset", *keys_of(ExportConfig)]
    known += [*keys_of(DataConfig, "data."), *keys_of(GateSettings, "gates.")]
    check_keys(values, known, tables)
    named = values.get("preset", RunConfig.preset)
    if not isinstance(named, str) or named not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {named!r}")
    towers, train = PRESETS[preset or named]
    mine = {key: value for key, value in values.items() if key not in ("preset", *_OWN_TABLES)}
    return RunConfig(
        preset=preset or named,
        export=apply(ExportConfig(towers=towers, train=train), mine),
        data=apply(DataConfig(), values.get("data", {}), "data."),
        gates=apply(GateSettings(), values.get("gates", {}), "gates."),
    )


def as_toml(config: RunConfig) -> str:
    """The configuration as a file that `from_file` reads back to the same one."""
    tables = {name: getattr(config.export, name) for name in _tables(ExportConfig)}
    tables = {"data": config.data, **tables, "gates": config.gates}
    parts = [
        [*_HEAD, f'preset = "{config.preset}"', *table_lines(config.export)],
        *(
            ["", f"# {_first_line(table)}", f"[{name}]", *table_lines(table)]
            for name, table in tables.items()
        ),
    ]
    return "\n".join(itertools.chain.from_iterable(parts))


def _tables(config: type[Any]) -> list[str]:
    return [
        one.name
        for one in dataclasses.fields(config)
        if one.default_factory is not dataclasses.MISSING
        and dataclasses.is_dataclass(one.default_factory)
    ]


def _first_line(table: Any) -> str:
    return (table.__doc__ or "").strip().partition("\n")[0]
