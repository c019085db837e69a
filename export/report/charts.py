"""Charts as inline SVG; their colours come from the page, so that they follow its scheme."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from shortlist.export.report._axes import HEIGHT, WIDTH, Axis, Frame, circle, line, rect, text
from shortlist.export.report._words import percent

__all__ = ["Bars", "Series", "bar_chart", "line_chart", "stacked_chart"]

_ROW, _BAR = 40, 20  # of a stacked chart: height of a row, of its bar
_NAMES = 130  # and width of the names before the bars
_MOST_DOTS = 30  # points of a line beyond which it needs none
_LEAST_LABELLED = 0.08  # share below which a part has no room for its number


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart.

    Attributes:
        name: Told with each point.
        points: `(x, y)`, from left to right.
        band: `(x, low, high)` around the line; empty for none.
        ring: A point with a ring around it; None for none.
        slot: Which of the page's colours it has; the same for the same thing everywhere.
    """

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    ring: tuple[float, float] | None = None
    slot: int = 0


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One colour of bars.

    Attributes:
        name: Told with each bar.
        values: One per group.
        slot: As in `Series`.
    """

    name: str
    values: Sequence[float]
    slot: int = 0


def line_chart(
    series: Sequence[Series], *, x: Axis, y: Axis, label: str, mark: tuple[float, str] | None = None
) -> str:
    """Lines with their points.

    Args:
        series: At least one line.
        x: Axis to the right.
        y: Axis upwards.
        label: The chart in words, for those who do not see it.
        mark: An x with a line of its own, and what it says.
    """
    frame = Frame(x=x, y=y)
    parts = frame.grid()
    if mark is not None:
        foot, head = frame.at(mark[0], y.ticks[0]), frame.at(mark[0], y.ticks[-1])
        parts.append(line(foot, head, "mark"))
        to_left = foot[0] > WIDTH / 2
        parts.append(
            text(
                head[0] + (-6 if to_left else 6),
                foot[1] - 8,
                mark[1],
                "end" if to_left else "start",
                "label",
            )
        )
    for one in series:
        if one.band:
            edge = [(at, high) for at, _, high in one.band]
            edge += [(at, low) for at, low, _ in reversed(one.band)]
            parts.append(f'<polygon points="{_path(frame, edge)}" class="band s{one.slot}"/>')
    for one in series:
        parts += _line(frame, one)
    return _svg(parts, label, HEIGHT)


def _line(frame: Frame, one: Series) -> list[str]:
    """A line with its points, or with its points alone where there is one only."""
    parts = []
    if len(one.points) > 1:
        parts.append(f'<polyline points="{_path(frame, one.points)}" class="line s{one.slot}"/>')
    if len(one.points) <= _MOST_DOTS:
        parts += [
            circle(
                frame.at(*point),
                f"dot s{one.slot}",
                f"{one.name}: {frame.y.written(point[1])} at {frame.x.written(point[0])}",
            )
            for point in one.points
        ]
    if one.ring is not None:
        x, y = frame.at(*one.ring)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" class="ring s{one.slot}"/>')
    return parts


def bar_chart(
    groups: Sequence[str], bars: Sequence[Bars], *, x_label: str, y: Axis, label: str
) -> str:
    """Bars side by side in groups.

    Args:
        groups: Names of the groups, from left to right.
        bars: One colour each, with one value per group.
        x_label: What the groups are.
        y: Axis upwards; begins at 0.
        label: The chart in words.
    """
    frame = Frame(x=Axis(label=x_label, ticks=(0, len(groups))), y=y)
    parts = frame.grid(x_lines=False)
    share = 0.72 / len(bars)  # of a group's width
    for number, group in enumerate(groups):
        middle, floor = frame.at(number + 0.5, y.ticks[0])
        parts.append(text(middle, floor + 20, group, "middle"))
        for place, one in enumerate(bars):
            left = frame.at(number + 0.14 + place * share, 0)[0]
            right = frame.at(number + 0.14 + (place + 1) * share, 0)[0]
            top = frame.at(0, one.values[number])[1]
            tip = f"{one.name}, {group}: {y.written(one.values[number])}"
            parts.append(
                rect(left + 1, top, right - left - 2, floor - top, f"bar s{one.slot}", tip)
            )
    return _svg(parts, label, HEIGHT)


def stacked_chart(
    rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], *, label: str
) -> str:
    """Shares that add up to 1, a bar to the right for each row.

    Args:
        rows: Name and shares.
        names: What the shares are of.
        label: The chart in words.
    """
    width = WIDTH - _NAMES - 8
    parts = []
    for number, (name, shares) in enumerate(rows):
        top = number * _ROW + 10
        parts.append(text(_NAMES - 10, top + _BAR / 2 + 5, name, "end", "label"))
        left = float(_NAMES)
        for place, share in enumerate(shares):
            tip = f"{name}, {names[place]}: {percent(share)}"
            parts.append(rect(left, top, share * width, _BAR, f"part p{place}", tip))
            if share >= _LEAST_LABELLED:
                middle = left + share * width / 2
                parts.append(
                    text(middle, top + _BAR / 2 + 5, percent(share, 0), "middle", f"on p{place}")
                )
            left += share * width
    return _svg(parts, label, len(rows) * _ROW + 4)


def _path(frame: Frame, points: Sequence[tuple[float, float]]) -> str:
    return " ".join("{:.1f},{:.1f}".format(*frame.at(*point)) for point in points)


def _svg(parts: Sequence[str], label: str, height: int) -> str:
    return "\n".join(
        [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img"',
            f"aria-label={quoteattr(label)}>",
            *parts,
            "</svg>",
        ]
    )
