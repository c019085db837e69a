"""Charts as SVG: inline in a page, whose colours they use, or as separate pictures."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

__all__ = [
    "SLOTS",
    "Axis",
    "Bars",
    "Series",
    "bar_chart",
    "line_chart",
    "log_ticks",
    "nice_ticks",
    "percent",
    "picture",
    "stacked_chart",
]

SLOTS: Final = 9  # colours that a page has for series
# In pixels on a wide screen; on a phone charts shrink by a fifth.
_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 48
_ROW, _BAR = 40, 20  # of a stacked chart: height of a row, of its bar
_NAMES = 130  # and width of the names before the bars
_MOST_DOTS = 30  # a longer line is drawn without its points
_LEAST_LABELLED = 0.08  # a smaller share has no room for its number
_STYLE = Path(__file__).parent / "templates" / "chart.css"
_MARGIN, _KEY_WIDTH, _KEY_HEIGHT = 18, 150, 20  # of a picture and the entries of its key

Point = tuple[float, float]


def percent(share: float, digits: int = 1) -> str:
    """Return a share such as `9.5 %`, with a no-break space and at most `digits` decimals."""
    number = f"{share * 100:.{digits}f}"
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number}\N{NO-BREAK SPACE}%"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: Measure and unit.
        ticks: Values with a line and a number, ascending; the first and last end the axis.
        log: Logarithmic; all ticks are positive.
        written: Format of a value.
    """

    label: str
    ticks: Sequence[float]
    log: bool = False
    written: Callable[[float], str] = lambda value: f"{value:g}"

    def share(self, value: float) -> float:
        """Position of a value on the axis, 0 to 1."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def nice_ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """About `count` round numbers, from one at or below `low` to one at or above `high`."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 of each decade from `low` to `high`; only at 1 if those are too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    fine = [unit * 10.0**power for power in range(first, last) for unit in (1, 2, 5)]
    fine.append(10.0**last)
    start = max(place for place, tick in enumerate(fine) if tick <= low * 1.0001)
    stop = min(place for place, tick in enumerate(fine) if tick >= high * 0.9999)
    if stop == start:
        stop = min(start + 1, len(fine) - 1)
        start = stop - 1
    if stop - start <= 7:
        return fine[start : stop + 1]
    return [10.0**power for power in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart.

    Attributes:
        name: Shown with each point.
        points: `(x, y)`, from left to right.
        band: `(x, low, high)` around the line; may be empty.
        ring: A point to mark with a ring.
        slot: Number of the colour, below `SLOTS`.
    """

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()
    ring: Point | None = None
    slot: int = 0


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars of one colour.

    Attributes:
        name: Shown with each bar.
        values: One per group.
        slot: Number of the colour, below `SLOTS`.
    """

    name: str
    values: Sequence[float]
    slot: int = 0


def line_chart(
    series: Sequence[Series], *, x: Axis, y: Axis, label: str, mark: tuple[float, str] | None = None
) -> str:
    """Return lines with their points.

    Args:
        series: At least one line.
        x: Horizontal axis.
        y: Vertical axis.
        label: Description for screen readers.
        mark: An x to mark with a dashed line, and its text.
    """
    frame = _Frame(x=x, y=y)
    parts = frame.grid()
    if mark is not None:
        foot, head = frame.at(mark[0], y.ticks[0]), frame.at(mark[0], y.ticks[-1])
        parts.append(_rule(foot, head, "mark"))
        side, anchor = (-6, "end") if foot[0] > _WIDTH / 2 else (6, "start")
        parts.append(_text(head[0] + side, foot[1] - 8, mark[1], anchor, "label"))
    for line in series:
        if line.band:
            edge = [(at, high) for at, _, high in line.band]
            edge += [(at, low) for at, low, _ in reversed(line.band)]
            parts.append(f'<polygon points="{frame.path(edge)}" class="band s{line.slot}"/>')
    for line in series:
        parts += _line(frame, line)
    return _svg(parts, label, _HEIGHT)


def _line(frame: "_Frame", line: Series) -> list[str]:
    parts = []
    if len(line.points) > 1:
        path = frame.path(line.points)
        parts.append(f'<polyline points="{path}" class="line s{line.slot}"/>')
    for point in line.points if len(line.points) <= _MOST_DOTS else ():
        x, y = frame.at(*point)
        tip = f"{line.name}: {frame.y.written(point[1])} at {frame.x.written(point[0])}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="dot s{line.slot}">'
            f"<title>{escape(tip)}</title></circle>"
        )
    if line.ring is not None:
        x, y = frame.at(*line.ring)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" class="ring s{line.slot}"/>')
    return parts


def bar_chart(
    groups: Sequence[str], bars: Sequence[Bars], *, x_label: str, y: Axis, label: str
) -> str:
    """Return bars side by side in groups.

    Args:
        groups: Names of the groups, from left to right.
        bars: One colour each, with one value per group.
        x_label: Label of the groups.
        y: Vertical axis; begins at 0.
        label: Description for screen readers.
    """
    frame = _Frame(x=Axis(label=x_label, ticks=(0, len(groups))), y=y)
    parts = frame.grid(x_ticks=False)
    share = 0.72 / len(bars)  # of a group's width
    for number, group in enumerate(groups):
        middle, floor = frame.at(number + 0.5, y.ticks[0])
        parts.append(_text(middle, floor + 20, group, "middle"))
        for place, bar in enumerate(bars):
            left = frame.at(number + 0.14 + place * share, 0)[0]
            right = frame.at(number + 0.14 + (place + 1) * share, 0)[0]
            top = frame.at(0, bar.values[number])[1]
            tip = f"{bar.name}, {group}: {y.written(bar.values[number])}"
            box = (left + 1, top, right - left - 2, floor - top)
            parts.append(_rect(*box, f"bar s{bar.slot}", tip))
    return _svg(parts, label, _HEIGHT)


def stacked_chart(
    rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], *, label: str
) -> str:
    """Return one horizontal bar per row, divided by shares that add up to 1.

    Args:
        rows: Name and shares.
        names: Names of the shares.
        label: Description for screen readers.
    """
    width = _WIDTH - _NAMES - 8
    parts = []
    for number, (name, shares) in enumerate(rows):
        top = number * _ROW + 10
        parts.append(_text(_NAMES - 10, top + _BAR / 2 + 5, name, "end", "label"))
        left = float(_NAMES)
        for place, share in enumerate(shares):
            tip = f"{name}, {names[place]}: {percent(share)}"
            parts.append(_rect(left, top, share * width, _BAR, f"part p{place}", tip))
            if share >= _LEAST_LABELLED:
                middle = left + share * width / 2
                words = percent(share, 0)
                parts.append(_text(middle, top + _BAR / 2 + 5, words, "middle", f"on p{place}"))
            left += share * width
    return _svg(parts, label, len(rows) * _ROW + 4)


def picture(title: str, charts: Mapping[str, str], key: Sequence[tuple[int, str]]) -> str:
    """Return an SVG file of line charts that share a key, at most two in a row.

    Args:
        title: Shown on top.
        charts: Charts by their titles; the title of a single one may be empty.
        key: Slot and name of each series.
    """
    columns = min(len(charts), 2)
    width = columns * (_WIDTH + _MARGIN) + _MARGIN
    per_row = (width - 2 * _MARGIN) // _KEY_WIDTH
    parts = [
        f"<style>{escape(_STYLE.read_text(encoding='utf-8'))}</style>",
        '<rect width="100%" height="100%" fill="var(--surface)"/>',
        _text(_MARGIN, 30, title, "start", "title"),
    ]
    for number, (slot, name) in enumerate(key):
        x = _MARGIN + number % per_row * _KEY_WIDTH
        y = 54 + number // per_row * _KEY_HEIGHT
        parts.append(_rule((x, y), (x + 22, y), f"line s{slot}"))
        parts.append(_text(x + 29, y + 4, name, "start"))
    top = 54 + math.ceil(len(key) / per_row) * _KEY_HEIGHT
    head = 26 if any(charts) else 0  # room for the charts' own titles
    for number, (name, chart) in enumerate(charts.items()):
        left = _MARGIN + number % columns * (_WIDTH + _MARGIN)
        upper = top + number // columns * (_HEIGHT + head)
        parts.append(_text(left, upper + 14, name, "start", "name") if name else "")
        size = f'y="{upper + head}" width="{_WIDTH}" height="{_HEIGHT}"'
        parts.append(f'<svg x="{left}" {size}>{chart}</svg>')
    height = top + math.ceil(len(charts) / columns) * (_HEIGHT + head) + 4
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
            'font-family="system-ui, sans-serif" class="picture chart" role="img"',
            f"aria-label={quoteattr(title)}>",
            *parts,
            "</svg>\n",
        ]
    )


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """The plane between two axes."""

    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> Point:
        """Return the place of a point."""
        return (
            _LEFT + self.x.share(x) * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - self.y.share(y) * (_HEIGHT - _TOP - _BOTTOM),
        )

    def path(self, points: Sequence[Point]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)

    def grid(self, *, x_ticks: bool = True) -> list[str]:
        """Return lines, numbers and labels of both axes."""
        low, high = self.x.ticks[0], self.x.ticks[-1]
        bottom, top = self.y.ticks[0], self.y.ticks[-1]
        parts = []
        for value in self.y.ticks:
            x, y = self.at(low, value)
            parts.append(_rule((x, y), self.at(high, value), "grid"))
            parts.append(_text(x - 8, y + 4, self.y.written(value), "end"))
        for value in self.x.ticks if x_ticks else ():
            x, y = self.at(value, bottom)
            parts.append(_rule((x, y), self.at(value, top), "grid"))
            parts.append(_text(x, y + 20, self.x.written(value), "middle"))
        parts.append(_rule(self.at(low, bottom), self.at(high, bottom), "axis"))
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(_text(middle, _HEIGHT - 8, self.x.label, "middle", "label"))
        return parts


def _rule(start: Point, end: Point, kind: str) -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'class="{kind}"/>'
    )


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(words)}</text>"
    )


def _rect(left: float, top: float, width: float, height: float, kind: str, tip: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}" class="{kind}"><title>{escape(tip)}</title></rect>'
    )


def _svg(parts: Sequence[str], label: str, height: int) -> str:
    return "\n".join(
        [
            f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img"',
            f"aria-label={quoteattr(label)}>",
            *parts,
            "</svg>",
        ]
    )
