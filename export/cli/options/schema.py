"""JSON Schema of configuration files, for editors that complete and check TOML."""

import dataclasses
import types
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from shortlist.clients.contract import INDEXES
from shortlist.export.cli.options.run_config import RunConfig
from shortlist.export.cli.options.toml_file import attribute_docs
from shortlist.export.config import PRESETS, ROW_TYPES, TARGETS

__all__ = ["config_schema"]

_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", Path: "string"}
# Texts of which a dataclass takes only some.
_CHOICES = {"indexes": INDEXES, "preset": PRESETS, "row_type": ROW_TYPES, "target": TARGETS}
_INSTALLED = "indexes"  # its default depends on the installed packages


def config_schema() -> dict[str, Any]:
    """Return the schema, with the description and default of every key.

    The keys of `export` stand at the top of a file, as `from_file` reads them.
    """
    whole = _table(RunConfig())["properties"]
    properties = {"preset": whole["preset"], **whole["export"]["properties"]}
    properties |= {name: whole[name] for name in ("data", "gates")}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of `shortlist export`",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _table(config: Any) -> dict[str, Any]:
    docs = attribute_docs(type(config))
    hints = get_type_hints(type(config))
    properties = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            properties[field.name] = _table(value)
            continue
        schema = {"description": docs.get(field.name, ""), **_type(hints[field.name], field.name)}
        if field.name != _INSTALLED:
            schema["default"] = _plain(value)
        properties[field.name] = schema
    summary = (type(config).__doc__ or "").strip().partition("\n")[0]
    return {
        "description": summary,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _type(hint: Any, name: str) -> dict[str, Any]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (kind,) = (each for each in get_args(hint) if each is not type(None))
        return {"anyOf": [_type(kind, name), {"const": ""}]}
    if origin in (tuple, frozenset):
        return {"type": "array", "items": _type(str, name)}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [str(value) for value in hint]}
    return {"enum": list(_CHOICES[name])} if name in _CHOICES else {"type": _TYPES[hint]}


def _plain(value: Any) -> Any:
    if value is None:
        return ""  # leaves an optional key unset
    if isinstance(value, tuple | frozenset):
        return sorted(value) if isinstance(value, frozenset) else list(value)
    return str(value) if isinstance(value, Path | StrEnum) else value
