"""Converts TOML to frozen dataclasses and back; comments come from the docstrings.

An empty string stands for `None`, which TOML lacks: `num_leaves = ""` leaves it unset.
"""

import dataclasses
import difflib
import inspect
import json
import math
import re
import textwrap
import tomllib
import types
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["apply", "attribute_docs", "check_keys", "keys_of", "read_toml", "table_lines"]

_WIDTH = 96
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}

_RENAMED = {
    "gates.max_hit_rate_drop": "gates.max_quality_drop, a share of the live version's hit rate"
}

Config = TypeVar("Config")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables and values of a file.

    Raises:
        ValueError: The file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ValueError(f"cannot read {path}: {exc.strerror}; give a TOML file") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path} is not UTF-8, as TOML must be (byte {exc.start})") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path} is not TOML: {exc}") from exc


def keys_of(config: type[Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a dataclass and of the dataclasses in it, without their names."""
    keys: list[str] = []
    for name, hint in _hints(config).items():
        nested = dataclasses.is_dataclass(hint)
        keys += keys_of(hint, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def check_keys(values: Mapping[str, Any], known: Sequence[str], tables: Sequence[str]) -> None:
    """Check that all keys are known.

    Args:
        values: Result of `read_toml`.
        known: Known dotted keys.
        tables: Names of tables, which may have no key of their own.

    Raises:
        ValueError: A key is unknown; the message names the nearest known key.
    """
    for name, value in values.items():
        if name in tables:
            if not isinstance(value, dict):
                raise ValueError(f"{name} must be a table, [{name}], got {_shown(value)}")
            for key in value:
                if f"{name}.{key}" not in known:
                    raise ValueError(_unknown(f"{name}.{key}", known))
        elif name not in known:
            raise ValueError(_unknown(name, [*known, *tables]))


def apply(config: Config, values: Mapping[str, Any], prefix: str = "") -> Config:
    """Return the dataclass with the values of a table instead of its own.

    Args:
        config: Dataclass; its dataclasses are tables of the same name.
        values: Values by name, checked by `check_keys`.
        prefix: Prefix of dotted keys in messages.

    Raises:
        ValueError: A value has the wrong type, or the dataclass rejects it.
    """
    hints = _hints(type(config))
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            changes[name] = apply(getattr(config, name), value, f"{prefix}{name}.")
        else:
            changes[name] = _converted(hints[name], value, f"{prefix}{name}")
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except ValueError as exc:
        raise ValueError(f"[{prefix.rstrip('.')}] {exc}" if prefix else str(exc)) from exc


def table_lines(config: Any) -> list[str]:
    """Return the values of a dataclass as commented TOML, without nested dataclasses."""
    import tomlkit  # `--help` must work in an installation of the clients alone, too

    docs = attribute_docs(type(config))
    lines = []
    for name, hint in _hints(type(config)).items():
        if dataclasses.is_dataclass(hint):
            continue
        doc = re.sub(r"\bNone\b", '""', docs.get(name, ""))
        lines += textwrap.wrap(doc, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"{name} = {tomlkit.item(_plain(getattr(config, name))).as_string()}")
    return lines


def attribute_docs(config: type[Any]) -> dict[str, str]:
    """Return the `Attributes:` sections of a class and its bases, by name, one line each."""
    docs: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        text = inspect.cleandoc(kind.__doc__ or "")
        _, _, section = text.partition("Attributes:\n")
        for paragraph in re.split(r"\n(?=    \w)", "\n" + section):
            name, colon, rest = paragraph.strip().partition(":")
            if colon and name.isidentifier():
                docs[name] = " ".join(rest.split())
    return docs


def _hints(config: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def _converted(hint: Any, value: Any, key: str) -> Any:
    """Convert a TOML value to the type of a dataclass field."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (optional,) = (kind for kind in get_args(hint) if kind is not type(None))
        return None if value == "" else _converted(optional, value, key)
    if origin is Literal:
        if value not in get_args(hint):
            raise _wrong(key, f"one of {', '.join(get_args(hint))}", value)
        return value
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if value not in list(hint):
            raise _wrong(key, f"one of {', '.join(hint)}", value)
        return hint(value)
    if origin in (tuple, frozenset):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _wrong(key, "an array of strings", value)
        return origin(value)
    if hint is Path:
        if not isinstance(value, str):
            raise _wrong(key, "a string", value)
        return Path(value)
    if hint is float and type(value) is int:
        value = float(value)
    # bool is a subclass of int, but `epochs = true` is a mistake.
    if type(value) is not hint:
        raise _wrong(key, _KINDS[hint], value)
    if hint is float and not math.isfinite(value):
        raise _wrong(key, "a finite number", value)
    return value


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, Path | StrEnum):
        return str(value)
    if isinstance(value, frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def _wrong(key: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{key} must be {expected}, got {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    return json.dumps(value, default=str, ensure_ascii=False)


def _unknown(key: str, known: Sequence[str]) -> str:
    """Return a message with the nearest known key: the same name in another table, or similar."""
    if key in _RENAMED:
        return f"unknown key {key}; it is now {_RENAMED[key]}"
    leaf = key.rpartition(".")[2]
    leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = [leaves[leaf]] if leaf in leaves else difflib.get_close_matches(key, known, n=1)
    near = near or [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1)]
    if near:
        return f"unknown key {key}; did you mean {near[0]}?"
    return f"unknown key {key}; `shortlist export --print-config` prints all keys"
