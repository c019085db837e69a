"""Frozen dataclasses from TOML and back; what a key means comes from the docstrings.

An empty string stands for None, which TOML lacks: `num_leaves = ""` leaves it unset.
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

Config = TypeVar("Config")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a file.

    Raises:
        ValueError: It cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ValueError(f"cannot read {path}: {exc.strerror}; give a TOML file") from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path} is not UTF-8 at byte {exc.start}; TOML has to be") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path} is not TOML: {exc}") from exc


def keys_of(config: type[Any], prefix: str = "") -> list[str]:
    """Dotted keys of a dataclass and of the dataclasses in it, without their own names."""
    keys: list[str] = []
    for name, hint in _hints(config).items():
        nested = dataclasses.is_dataclass(hint)
        keys += keys_of(hint, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def check_keys(values: Mapping[str, Any], known: Sequence[str], tables: Sequence[str]) -> None:
    """Refuses the first key that nobody knows.

    Args:
        values: As `read_toml` gives them.
        known: Dotted keys.
        tables: Names of tables, some of which may hold no key.

    Raises:
        ValueError: With the nearest known key.
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
    """The dataclass with the values of a table in place of its own.

    Args:
        config: A dataclass; those in it are tables of the same name.
        values: By name; every one of them is known, see `check_keys`.
        prefix: Of the dotted keys in messages.

    Raises:
        ValueError: A value has the wrong type, or the dataclass refuses it.
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
    """The values of a dataclass as TOML, each below a comment; dataclasses in it left out."""
    import tomlkit  # `--help` answers in an installation of the clients alone, too

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
    """What a class's docstring says under `Attributes:`, by name, each in one line."""
    text = inspect.cleandoc(config.__doc__ or "")
    _, _, section = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n(?=    \w)", "\n" + section):
        name, colon, rest = paragraph.strip().partition(":")
        if colon and name.isidentifier():
            found[name] = " ".join(rest.split())
    return found


def _hints(config: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def _converted(hint: Any, value: Any, key: str) -> Any:
    """A value of TOML as the type that a dataclass wants."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (wanted,) = (one for one in get_args(hint) if one is not type(None))
        return None if value == "" else _converted(wanted, value, key)
    if origin is Literal:
        if value not in get_args(hint):
            raise _wrong(key, f"one of {', '.join(get_args(hint))}", value)
        return value
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        if value not in list(hint):
            raise _wrong(key, f"one of {', '.join(hint)}", value)
        return hint(value)
    if origin in (tuple, frozenset):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
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


def _wrong(key: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{key} must be {wanted}, got {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    return json.dumps(value, default=str, ensure_ascii=False)


def _unknown(key: str, known: Sequence[str]) -> str:
    """One line that names the nearest known key: the same name elsewhere, or alike."""
    leaf = key.rpartition(".")[2]
    leaves = {one.rpartition(".")[2]: one for one in reversed(known)}
    near = [leaves[leaf]] if leaf in leaves else difflib.get_close_matches(key, known, n=1)
    near = near or [leaves[one] for one in difflib.get_close_matches(leaf, leaves, n=1)]
    if near:
        return f"unknown key {key}; did you mean {near[0]}?"
    return f"unknown key {key}; `shortlist export --print-config` prints all that there are"
