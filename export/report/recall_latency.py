"""Pictures of recall against latency, as SVG."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

__all__ = ["front", "recall_latency_svg"]

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 150, 40, 50
_LEAST_RECALL = 0.5
_COLORS = (
    *("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"),
    *("#17becf", "#e377c2", "#7f7f7f"),
)


def recall_latency_svg(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> str:
    """A chart with recall upwards and latency, on a logarithmic axis, to the right.

    Args:
        curves: `(latency in ms, recall)` points by the name of their index; a point that
            another of the same index beats in both is left out, and so is a recall below 0.5
            where an index has better.
        title: Shown above.
    """
    fronts = {name: _worth_seeing(front(points)) for name, points in curves.items()}
    latencies = [latency for points in fronts.values() for latency, _ in points]
    recalls = [recall for points in fronts.values() for _, recall in points]
    ticks = _ticks(min(latencies), max(latencies))
    bottom = max(0.0, math.floor(min(recalls) * 10) / 10)
    bottom = min(bottom, 0.9)

    def x(latency: float) -> float:
        share = math.log(latency / ticks[0]) / math.log(ticks[-1] / ticks[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(recall: float) -> float:
        return _TOP + (1 - recall) / (1 - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for tick in ticks:
        parts.append(_line(x(tick), y(bottom), x(tick), y(1), "#ddd"))
        parts.append(_text(x(tick), _HEIGHT - _BOTTOM + 18, f"{tick:g}", "middle"))
    for tenth in range(round(bottom * 10), 11):
        parts.append(_line(x(ticks[0]), y(tenth / 10), x(ticks[-1]), y(tenth / 10), "#ddd"))
        parts.append(_text(_LEFT - 8, y(tenth / 10) + 4, f"{tenth / 10:.1f}", "end"))
    parts.append(_text((x(ticks[0]) + x(ticks[-1])) / 2, _HEIGHT - 12, "ms per query", "middle"))
    parts.append(_text(_LEFT - 8, _TOP - 8, "recall", "end"))
    for row, (name, points) in enumerate(fronts.items()):
        color = _COLORS[row % len(_COLORS)]
        line = " ".join(f"{x(latency):.1f},{y(recall):.1f}" for latency, recall in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(latency):.1f}" cy="{y(recall):.1f}" r="3" fill="{color}">'
            f"<title>{escape(name)}: {latency:.3g} ms, recall {recall:.3f}</title></circle>"
            for latency, recall in points
        ]
        left = _WIDTH - _RIGHT + 20
        parts.append(_line(left, _TOP + 20 * row, left + 20, _TOP + 20 * row, color, 2))
        parts.append(_text(left + 26, _TOP + 20 * row + 4, name, "start"))
    return "\n".join([*parts, "</svg>\n"])


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no faster one equals in recall, by latency."""
    front: list[tuple[float, float]] = []
    for latency, recall in sorted(points):
        if not front or recall > front[-1][1]:
            front.append((latency, recall))
    return front


def _worth_seeing(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without what nobody would serve, where there is better."""
    return [point for point in points if point[1] >= _LEAST_RECALL] or points[-1:]


def _ticks(least: float, most: float) -> list[float]:
    """Values 1, 2 and 5 of each decade, from the one below the least to the one above the most."""
    first = math.floor(math.log10(least))
    last = math.ceil(math.log10(most)) + 1
    steps = [step * 10.0**power for power in range(first, last) for step in (1, 2, 5)]
    below = max(i for i, step in enumerate(steps) if step <= least * (1 + 1e-9))
    above = min(i for i, step in enumerate(steps) if step > most)
    return steps[below : above + 1]


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
