"""Pieces of a self-contained HTML page: tables, figures, and the page itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["Cell", "Figure", "Table", "render_page"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: Content.
        more: Small print below.
        best: Best of its row.
        kind: CSS classes; may be empty.
    """

    text: str
    more: str = ""
    best: bool = False
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: Title.
        columns: Headings.
        rows: Cells, as many per row as headings.
        numeric: All columns but the first hold numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with its title and key.

    Attributes:
        title: Title above the chart.
        note: Note below it; may be empty.
        svg: Chart.
        key: CSS classes and name of each colour; empty for a single one.
    """

    title: str
    note: str
    svg: Markup
    key: Sequence[tuple[str, str]] = ()


def render_page(template: str, **variables: Any) -> str:
    """Return a page as HTML; the same variables give the same text.

    The page loads nothing and runs nothing. All strings are escaped.

    Args:
        template: Name of the template.
        **variables: Variables of the template.
    """
    return _environment().get_template(template).render(**variables)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("shortlist.export.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
