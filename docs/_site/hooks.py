"""Events of MkDocs: pages for files outside docs/, and reference pages made from the code."""

import argparse
import ast
import html
import json
import os
import posixpath
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))
os.environ["COLUMNS"] = "100"  # of the help texts

SCHEMA: Final = "reference/config.schema.json"
_GENERATED = re.compile(r"<!-- generated: ([\w-]+) -->")
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside docs/ that a page links to, and those that they link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        for target in _targets(source):
            if target in seen or not (ROOT / target).is_file():
                continue
            seen.add(target)
            if target.startswith("docs/"):
                continue
            page = File.generated(config, _page_of(target), content=_content(target))
            page.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(page)
            if target.endswith(".md"):
                waiting.append(target)
    schema = json.dumps(_schema(), indent=2, ensure_ascii=False) + "\n"
    files.append(File.generated(config, SCHEMA, content=schema))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code, and point the links of a page to the site's pages."""
    source = _source_of(page.file)
    markdown = _GENERATED.sub(lambda match: "\n".join(_GENERATORS[match[1]]()), markdown)

    def moved(link: re.Match[str]) -> str:
        target = _resolved(source, link[1])
        if not (ROOT / target).is_file():
            return link[1]  # MkDocs tells of it
        return posixpath.relpath(_page_of(target), posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(moved, markdown)


def _targets(source: str) -> set[str]:
    text = _FENCE.sub("", (ROOT / source).read_text(encoding="utf-8"))
    return {_resolved(source, link) for link in _LINK.findall(text)}


def _resolved(source: str, link: str) -> str:
    """Return the path, from the root, of what a link of a file leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _source_of(file: File) -> str:
    inside = f"docs/{file.src_uri}"
    return inside if (ROOT / inside).is_file() else file.src_uri


def _page_of(path: str) -> str:
    """Return the site's name of a file: Python is shown as a page of its own."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{path}.md" if path.endswith(".py") else path


def _content(path: str) -> str | bytes:
    content = (ROOT / path).read_bytes()
    if path.endswith(".py"):
        return f"# `{path}`\n\n```python\n{content.decode()}```\n"
    return content


# --- reference pages ----------------------------------------------------------------


def _schema() -> dict[str, Any]:
    from shortlist.export.cli.options.schema import config_schema

    return config_schema()


def _commands() -> Iterator[str]:
    from shortlist.clients.cli.main import build_parser

    yield from _help(build_parser())


def _help(parser: argparse.ArgumentParser, level: int = 2) -> Iterator[str]:
    """Yield the help of a command, then of its parts."""
    yield f"{'#' * level} `{parser.prog}`\n\n```text\n{parser.format_help()}```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in dict.fromkeys(action.choices.values()):
                yield from _help(part, min(level + 1, 3) if level > 2 else level)


def _configuration() -> Iterator[str]:
    """Yield a table of the keys at the top of a file, then one of each TOML table."""
    properties = _schema()["properties"]
    tables = {name: entry for name, entry in properties.items() if "properties" in entry}
    yield from _keys({name: entry for name, entry in properties.items() if name not in tables})
    for name, entry in tables.items():
        if entry["properties"]:
            yield f"## `[{name}]`\n\n{entry['description']}\n"
            yield from _keys(entry["properties"])


def _keys(properties: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| key | default | |\n| --- | --- | --- |"
    for name, entry in properties.items():
        default = "those installed"
        if "default" in entry:
            default = "" if entry["default"] == "" else f"`{json.dumps(entry['default'])}`"
        text = entry["description"].replace("|", "\\|")
        yield f"| `{name}` | {default} | {text}{_choices(entry)} |"
    yield ""


def _choices(entry: Mapping[str, Any]) -> str:
    """Return the values that a key takes, if its description does not name them."""
    entry = entry.get("items") or entry.get("anyOf", [entry])[0]
    values = [f"`{value}`" for value in entry.get("enum", ())]
    missing = [value for value in values if value not in entry.get("description", "")]
    return f" One of {', '.join(values)}." if missing else ""


def _metrics() -> Iterator[str]:
    """Yield a table of the metrics of each source."""
    from prometheus_client import CollectorRegistry

    from shortlist.clients.hooks.prometheus import PrometheusHook
    from shortlist.export.monitor import metrics as monitor
    from shortlist.serving.embedded.api.metrics import Metrics

    exporter = runpy.run_path(str(ROOT / "docker/monitoring/status_exporter.py"))
    registry = CollectorRegistry()
    PrometheusHook(registry)
    types = re.findall(r"# TYPE (\S+) (\S+)", Metrics().page().decode())
    yield from _metrics_table("Servers", "type", types)
    clients = [(metric.name, metric.documentation) for metric in registry.collect()]
    yield from _metrics_table("Clients: `PrometheusHook`", "", clients)
    for title, prefix, texts in (
        ("Status exporter", exporter["PREFIX"], exporter["HELP"]),
        ("`shortlist monitor --metrics`", monitor.PREFIX, monitor.HELP),
    ):
        rows = [(prefix + name, text) for name, text in texts.items()]
        yield from _metrics_table(title, "", rows)


def _metrics_table(title: str, column: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"### {title}\n\n| metric | {column} |\n| --- | --- |"
    yield from (f"| `{name}` | {text} |" for name, text in rows)
    yield ""


# Errors of calls and commands, by folders in the code.
_AREAS: Final = {
    "Data": ("export/data", "export/inspection"),
    "Export, training and gates": ("export",),
    "Repository and versions": ("serving/repository",),
    "Rollouts": ("serving/rollout",),
    "Servers and containers": ("serving/servers", "serving/cli"),
    "Request logs": ("clients/request_log", "serving/request_log"),
    "Clients and commands": ("clients", "serving"),
}
# TensorFlow Serving's own texts, measurements, and what only tests and generators raise.
_NO_AREA: Final = ("serving/embedded", "clients/testing", "clients/wire")
_RAISED: Final = re.compile(
    r"(\w*Error|\w+(NotFound|Request|Flight|Failed)|Unsupported|Unavailable)$"
)
_NOT_OURS: Final = {
    "AssertionError",
    "AttributeError",
    "ImportError",
    "KeyError",
    "OSError",
    "TypeError",
}


def _errors() -> Iterator[str]:
    """Yield tables of the messages that the code raises, by area."""
    areas: dict[str, set[tuple[str, str]]] = {area: set() for area in _AREAS}
    for path in (
        path
        for package in ("clients", "serving", "export")
        for path in (ROOT / package).rglob("*.py")
    ):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(_NO_AREA) and "/bench/" not in name:
            area = next(area for area, folders in _AREAS.items() if name.startswith(folders))
            areas[area].update(_raised(ast.parse(path.read_text(encoding="utf-8"))))
    for area, messages in areas.items():
        yield f"### {area}\n\n| message | class |\n| --- | --- |"
        for message, kind in sorted(messages, key=lambda each: each[0].lower()):
            yield f"| {message} | `{kind}` |"
        yield ""


def _raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield message and class of each `raise` with a text."""
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=called, args=[first, *_])):
                kind = ast.unparse(called).rpartition(".")[2]
                message = _text(first)
                # A text of one name is another error's.
                if _RAISED.match(kind) and kind not in _NOT_OURS and " " in message:
                    yield (
                        html.escape(message)
                        .replace("{", "&#123;")
                        .replace("|", "\\|")
                        .replace("\n", " ")
                        .replace("`", ""),
                        kind,
                    )


def _text(node: ast.expr) -> str:
    """Return a text with names in braces for its values."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_text, parts))
        case ast.FormattedValue(value=value):
            return "{" + (ast.unparse(value) if isinstance(value, ast.Name) else "…") + "}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
    return "{…}"


_GENERATORS: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "commands": _commands,
    "configuration": _configuration,
    "errors": _errors,
    "metrics": _metrics,
}
