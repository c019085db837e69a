"""Output of all verbs: results on stdout, progress on stderr; tables, JSON and numbers.

Control characters are escaped, as ids, titles and errors come from servers and files.
"""

import dataclasses
import json
import sys
from collections.abc import Collection, Sequence
from typing import Any, Final

from shortlist.clients._printable import printable
from shortlist.clients.cli.terminal import TERMINAL, has_colours

__all__ = [
    "megabytes",
    "notice",
    "number",
    "printable",
    "progress",
    "short_count",
    "step",
    "table",
    "tell",
    "write",
    "write_json",
    "write_table",
]

_BOLD: Final = "1"
# Cells that tell good from bad, by their first word.
_COLOURS: Final = {
    **dict.fromkeys(("AVAILABLE", "ok", "passed"), "32"),  # green
    **dict.fromkeys(("LOADING", "START", "UNLOADING", "allowed", "skipped", "warning"), "33"),
    **dict.fromkeys(("END", "failed", "problem"), "31"),  # red
}


def write(text: str) -> None:
    """Write a result to stdout; newlines are kept, other control characters escaped."""
    TERMINAL.write(sys.stdout, f"{printable(text, newlines=True)}\n")


def write_table(rows: Sequence[Sequence[str]], *, text: Collection[int] = (0,)) -> None:
    """Write rows as `table` aligns them, on terminals with colours."""
    if not has_colours(sys.stdout):
        write(table(rows, text=text))
        return
    lines = []
    for number, line in enumerate(_aligned(rows, text)):
        codes = [_BOLD if number == 0 else _COLOURS.get(_first_word(cell), "") for cell in line]
        cells = [
            f"\x1b[{code}m{cell}\x1b[0m" if code else cell
            for cell, code in zip(line, codes, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    TERMINAL.write(sys.stdout, "".join(f"{line}\n" for line in lines))


def _first_word(cell: str) -> str:
    return next(iter(cell.replace(",", " ").split()), "")


def write_json(value: Any, *, indent: int | None = 2) -> None:
    """Write a result to stdout as JSON; dataclasses become objects.

    Args:
        value: Anything that `json` takes, and dataclasses.
        indent: Spaces per level; `None` for a single line.
    """
    write(json.dumps(value, ensure_ascii=False, indent=indent, default=_object))


def _object(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def progress(text: str) -> None:
    """Write a line to stderr unless quiet; newlines are kept, control characters escaped."""
    if not TERMINAL.quiet:
        tell(text)


def tell(text: str) -> None:
    """Write a line to stderr, also if quiet, such as why a gate failed."""
    TERMINAL.write(sys.stderr, f"{printable(text, newlines=True)}\n")


def notice(text: str) -> None:
    """Write a line to stderr that names the command, as warnings and errors do."""
    tell(f"shortlist: {text}")


def step(name: str, seconds: float, measure: str = "") -> str:
    """Return the progress line of a finished step."""
    return f"{name:<18} {seconds:6.1f} s  {measure}".rstrip()


def table(
    rows: Sequence[Sequence[str]], *, text: Collection[int] = (0,), markdown: bool = False
) -> str:
    """Return rows as aligned columns, with newlines in cells escaped.

    Args:
        rows: The headings, then the cells.
        text: Left-aligned columns; the others are numbers, right-aligned.
        markdown: Return a Markdown table.
    """
    lines = _aligned(rows, text, least=3 if markdown else 0)  # a rule's dashes
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    widths = map(len, lines[0])
    rule = [
        "-" * width if column in text else "-" * (width - 1) + ":"
        for column, width in enumerate(widths)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def _aligned(
    rows: Sequence[Sequence[str]], text: Collection[int], *, least: int = 0
) -> list[list[str]]:
    """Return rows with cells of the same width in each column."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(least, *map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.ljust(width) if column in text else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]


def number(value: float | None, form: str = "g", *, unknown: str = "-") -> str:
    """Return a formatted number, or `unknown` for `None`."""
    return unknown if value is None else format(value, form)


def megabytes(size_bytes: float | None, form: str = ",.1f", *, unknown: str = "-") -> str:
    """Return a size in MB (10^6 bytes), without the unit."""
    return number(None if size_bytes is None else size_bytes / 1e6, form, unknown=unknown)


def short_count(count: int) -> str:
    """Return a round count as 100k or 1M, any other with thousands separators."""
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if count and count % unit == 0:
            return f"{count // unit}{name}"
    return f"{count:,}"
