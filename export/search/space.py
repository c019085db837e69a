"""Space of a search: which settings it may change, and to which values."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shortlist.export.config import ExportConfig, ModelConfig

__all__ = ["DEFAULT_SPACE", "Choices", "Range", "Space", "read_space", "with_settings"]

Value = bool | int | float | str

# All others change what is measured rather than how well it is done, or have no effect on it.
_TRAIN = (
    "activity_power",
    "batch_size",
    "epochs",
    "learning_rate",
    "norm_penalty",
    "optimizer",
    "patience",
    "sampled_candidates",
)
_KEYS = (
    *(f"towers.{field.name}" for field in dataclasses.fields(ModelConfig)),
    *(f"train.{name}" for name in _TRAIN),
)


@dataclass(frozen=True)
class Choices:
    """Values to choose from."""

    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers between two ends, which belong to it.

    Attributes:
        low: Smallest number.
        high: Largest number.
        log: Draw its logarithm evenly, so that 0.001 to 0.01 is as likely as 0.01 to 0.1.
        whole: Whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


Space = Mapping[str, Choices | Range]  # by dotted key of the configuration

DEFAULT_SPACE: Space = {
    "towers.embedding_dim": Choices((64, 128, 256)),
    "towers.temperature": Range(low=0.08, high=0.4, log=True),
    "towers.inner_product_weight": Range(low=0.0, high=1.0),
    "towers.linear_dimension": Choices((0, 128, 256)),
    "train.batch_size": Choices((64, 128, 256)),
    "train.learning_rate": Range(low=0.003, high=0.03, log=True),
    "train.activity_power": Range(low=0.0, high=1.0),
    "train.norm_penalty": Range(low=0.02, high=0.6, log=True),
}


def read_space(tables: Mapping[str, Any], config: ExportConfig) -> Space:
    """Return the space that the tables `[towers]` and `[train]` of a file describe.

    Args:
        tables: A list of values for each key, or `{low = …, high = …, log = true}`.
        config: Configuration whose settings are searched, which rejects impossible values.

    Raises:
        ValueError: A key cannot be searched, or a value is wrong.
    """
    space: dict[str, Choices | Range] = {}
    for key, value in _keys(tables):
        if key not in _KEYS:
            raise ValueError(f"{key} cannot be searched; choose from {', '.join(_KEYS)}")
        space[key] = _dimension(key, value, config)
        ends = space[key]
        for edge in ends.values if isinstance(ends, Choices) else (ends.low, ends.high):
            with_settings(config, {key: edge})
    if not space:
        raise ValueError("the space is empty; give values for a key such as towers.temperature")
    return space


def with_settings(config: ExportConfig, settings: Mapping[str, Value]) -> ExportConfig:
    """Return a configuration with other values of some dotted keys.

    Raises:
        ValueError: A value is out of range.
    """
    for key, value in settings.items():
        table, _, name = key.partition(".")
        changed = dataclasses.replace(getattr(config, table), **{name: value})
        config = dataclasses.replace(config, **{table: changed})
    return config


def _keys(tables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for table, values in tables.items():
        if table not in ("towers", "train") or not isinstance(values, Mapping):
            raise ValueError(f"a space has the tables [towers] and [train] only, got {table}")
        for name, value in values.items():
            yield f"{table}.{name}", value


def _dimension(key: str, value: Any, config: ExportConfig) -> Choices | Range:
    table, _, name = key.partition(".")
    now = getattr(getattr(config, table), name)
    kind = int if now is None else type(now)  # sampled_candidates may be unset
    if isinstance(value, list) and value:
        return Choices(tuple(_checked(key, kind, item) for item in value))
    numbers = kind in (int, float)
    if numbers and isinstance(value, Mapping) and {"low", "high"} <= set(value) <= _RANGE:
        low, high = (_checked(key, kind, value[end]) for end in ("low", "high"))
        log = value.get("log", False)
        if not low < high or (log and low <= 0) or not isinstance(log, bool):
            least = ", above 0," if log else ""
            raise ValueError(f"{key}: low{least} must be less than high, got {low} and {high}")
        return Range(low=low, high=high, log=log, whole=kind is int)
    forms = "a list of values" + (" or {low = …, high = …, log = true}" if numbers else "")
    raise ValueError(f"{key} must be {forms}, got {value!r}")


_RANGE = {"low", "high", "log"}


def _checked(key: str, kind: type, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{key} takes values such as {kind(1)!r}, got {value!r}")
    return value
