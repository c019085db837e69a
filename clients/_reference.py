"""Generates `clients/API.md` from the docstrings.

Usage: `python -m shortlist.clients._reference [--check]`.
"""

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

__all__ = ["main", "render"]

_FILE: Final = Path(__file__).with_name("API.md")

# Public modules in reading order.
_MODULES: Final = (
    ("shortlist.clients", "Clients"),
    ("shortlist.serving.embedded.local", "In process"),
    ("shortlist.clients.types", "Results"),
    ("shortlist.clients.errors", "Errors"),
    ("shortlist.clients.hooks.prometheus", "Metrics"),
    ("shortlist.clients.hooks.opentelemetry", "Traces"),
    ("shortlist.clients.request_log", "Request logs"),
    ("shortlist.clients.tensors", "Tensors"),
    ("shortlist.clients.testing", "Testing"),
)
_LIKE_GRPC_CLIENT: Final = ("AsyncGrpcClient", "LocalClient", "RestClient", "RetrievalClient")
_SECTIONS: Final = ("Args", "Returns", "Raises", "Attributes")


def _public(module_name: str) -> Iterator[tuple[str, Any]]:
    module = importlib.import_module(module_name)
    for name in sorted(module.__all__):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield name, value


def _signature(value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except ValueError:
        return ""
    text = re.sub(r"\bshortlist\.clients\.[a-z_.]*\b", "", text)
    text = re.sub(r"(collections\.abc|typing|pathlib\._local|pathlib)\.", "", text)
    text = text.replace("self, ", "").replace("(self)", "()")
    text = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>", "...", text)
    text = text.replace("prometheus_client.registry.", "").replace("opentelemetry.trace.", "")
    return re.sub(r" -> None$", "", text)


def _prose(docstring: str) -> str:
    """Return a docstring as Markdown; sections become lists."""
    lines: list[str] = []
    inside = ""
    for line in inspect.cleandoc(docstring).splitlines():
        heading = line.rstrip(":")
        if line.endswith(":") and heading in _SECTIONS:
            inside = heading
            lines += [f"**{heading}**", ""]
        elif inside and (entry := re.match(r"    (?! )([\w ,|\[\]`*.]+?): (.*)", line)):
            lines.append(f"- `{entry.group(1)}`: {entry.group(2)}")
        elif inside and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        elif inside and line and not line.startswith(" "):
            inside = ""
            lines.append(line)
        else:
            lines.append(line.strip() if inside else line)
    return "\n".join(lines)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    for name, member in inspect.getmembers(value):
        documented = inspect.isfunction(member) or isinstance(member, property | cached_property)
        if name.startswith("_") or not documented or not inspect.getdoc(member):
            continue
        own = (kind for kind in value.__mro__ if kind.__module__.startswith("shortlist.clients"))
        if any(name in vars(kind) for kind in own):
            yield name, member


def _entry(name: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value):
        yield f"### `{name}{_signature(value)}`\n"
        yield _prose(value.__doc__ or "") + "\n"
        return
    yield f"### `{name}`\n"
    if issubclass(value, Exception):
        base = value.__mro__[1].__name__
        yield f"A kind of `{base}`.\n" if base != "Exception" else ""
    yield _prose(value.__doc__ or "") + "\n"
    own_init = vars(value).get("__init__")
    if (
        own_init is not None
        and (own_init.__doc__ or "").strip()
        and not issubclass(value, Exception)
    ):
        yield f"```python\n{name}{_signature(own_init)}\n```\n"
        yield _prose(own_init.__doc__) + "\n"
    if name in _LIKE_GRPC_CLIENT:
        yield "Methods: those of `GrpcClient`.\n"
        return
    for member_name, member in _members(value):
        if isinstance(member, property | cached_property):
            yield f"#### `{name}.{member_name}`\n"
        else:
            word = "await " if inspect.iscoroutinefunction(member) else ""
            yield f"#### `{word}{name}.{member_name}{_signature(member)}`\n"
        yield _prose(inspect.getdoc(member) or "") + "\n"


def render() -> str:
    """Return the whole page."""
    parts = [
        "# API of the clients\n",
        "Generated from the docstrings by `python -m shortlist.clients._reference`; do not edit.\n",
    ]
    for module_name, title in _MODULES:
        module = importlib.import_module(module_name)
        parts += [f"## {title}: `{module_name}`\n", _prose(module.__doc__ or "") + "\n"]
        for name, value in _public(module_name):
            if module_name == "shortlist.clients" and value.__module__ in (
                "shortlist.clients.types",
                "shortlist.clients.errors",
            ):
                continue  # under their own heading
            parts += _entry(name, value)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(part for part in parts if part))


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the page; exit status 1 if it is outdated."""
    parser = argparse.ArgumentParser(
        prog="python -m shortlist.clients._reference", description=__doc__
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if it is outdated"
    )
    args = parser.parse_args(argv)
    text = render()
    if not args.check:
        _FILE.write_text(text, encoding="utf-8")
        return 0
    if _FILE.exists() and _FILE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("clients/API.md is not current; run `make reference`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
