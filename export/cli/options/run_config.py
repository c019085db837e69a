"""Effective configuration of a command: preset, then file, then options."""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortlist.export.cli.options import data_config, gate_settings, train_configs
from shortlist.export.cli.options.toml_file import (
    apply,
    check_keys,
    keys_of,
    read_toml,
    table_lines,
)
from shortlist.export.config import PRESETS, ExportConfig
from shortlist.export.data.config import DataConfig
from shortlist.export.gates.settings import GateSettings

__all__ = ["RunConfig", "as_toml", "check_output", "from_file", "run_config"]

_OWN_TABLES = ("data", "gates")
_HEAD = (
    "# Effective configuration of `shortlist export`; use it again with --config FILE.",
    '# An empty string leaves an optional key unset, as in num_leaves = "".',
    "",
    "# Recipe for keys that this file does not set: " + ", ".join(PRESETS) + ".",
)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Values that a configuration file can set.

    Attributes:
        preset: Recipe that supplies the remaining values.
        export: Model, training and indexes; its values stand at the top of a file, its
            dataclasses are tables.
        data: Data to read.
        gates: Limits that a version must meet.
    """

    preset: str = "default"
    export: ExportConfig = field(default_factory=ExportConfig)
    data: DataConfig = field(default_factory=DataConfig)
    gates: GateSettings = field(default_factory=GateSettings)


def run_config(args: argparse.Namespace) -> RunConfig:
    """Return the configuration of the options, which override the file and the preset.

    Raises:
        ValueError: A key is unknown, or a value has the wrong type or is out of range.
    """
    path: Path | None = args.config
    base = from_file(path, preset=args.preset)
    export = base.export
    towers, train = train_configs(args, (export.towers, export.train))
    values = {
        "model": getattr(args, "model", None),
        "indexes": tuple(getattr(args, "index", None) or ()) or None,
        "top_k": getattr(args, "top_k", None),
        "recall": getattr(args, "recall", None),
        "target": getattr(args, "target", None),
        "shards": getattr(args, "shards", None),
        "keep_seen": False if getattr(args, "without_seen", False) else None,
        "training_state": False if getattr(args, "without_training_state", False) else None,
        "batching": getattr(args, "batching", False) or None,
    }
    changes: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    gates = gate_settings(args, base.gates) if hasattr(args, "gate_server") else base.gates
    return RunConfig(
        preset=base.preset,
        export=dataclasses.replace(export, towers=towers, train=train, **changes),
        data=data_config(args, **vars(base.data)),
        gates=gates,
    )


def check_output(path: Path, option: str) -> None:
    """Check that an option names a file that can be written, before the work begins.

    Raises:
        ValueError: It names a folder, or a file in a folder that does not exist.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option} must name a file in an existing folder, got {path}")


def from_file(path: Path | None, *, preset: str | None = None) -> RunConfig:
    """Return the configuration of a file, which overrides a preset.

    Args:
        path: TOML file; `None` for the preset alone.
        preset: Name of the preset; `None` for the one that the file names, or `default`.

    Raises:
        ValueError: A key or value is wrong; the message names the file, the key and the nearest
            known key.
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
    top = {key: value for key, value in values.items() if key not in ("preset", *_OWN_TABLES)}
    return RunConfig(
        preset=preset or named,
        export=apply(ExportConfig(towers=towers, train=train), top),
        data=apply(DataConfig(), values.get("data", {}), "data."),
        gates=apply(GateSettings(), values.get("gates", {}), "gates."),
    )


def as_toml(config: RunConfig) -> str:
    """Return the configuration as a file that `from_file` reads back."""
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
        field.name
        for field in dataclasses.fields(config)
        if field.default_factory is not dataclasses.MISSING
        and dataclasses.is_dataclass(field.default_factory)
    ]


def _first_line(table: Any) -> str:
    return (table.__doc__ or "").strip().partition("\n")[0]
