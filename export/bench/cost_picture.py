"""The picture of `shortlist bench export`: four curves over the number of candidates."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shortlist.export.bench.cost import ExportCost

__all__ = ["cost_svg"]

_WIDTH, _HEIGHT = 360, 250  # of one panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 36, 34, 40
_HEAD = 30
_COLORS: Final = {"brute_force": "#1f77b4", "scann": "#d62728", "ivf": "#2ca02c"}

Points = Sequence[tuple[float, float]]


def cost_svg(costs: "Sequence[ExportCost]") -> str:
    """Export time, bytes on disk, memory at serving and latency, each index a line.

    Args:
        costs: Of one kind of vectors, at one or more sizes.
    """
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {2 * _WIDTH} {2 * _HEIGHT + _HEAD}",
            "font-family": "sans-serif",
            "font-size": "11",
        },
    )
    size = {"width": str(2 * _WIDTH), "height": str(2 * _HEIGHT + _HEAD)}
    ET.SubElement(root, "rect", {**size, "fill": "white"})
    first = costs[0]
    title = f"Cost over the corpus: {first.vectors} vectors of {first.dimension} dimensions"
    _text(root, _LEFT, 20, title, "start").set("font-size", "14")
    for place, (what, values) in enumerate(_panels(costs).items()):
        panel = ET.SubElement(
            root,
            "g",
            {
                "transform": f"translate({place % 2 * _WIDTH} {_HEAD + place // 2 * _HEIGHT})",
            },
        )
        _panel(panel, what, values, legend=place == 0)
    return ET.tostring(root, encoding="unicode") + "\n"


def _panels(costs: "Sequence[ExportCost]") -> dict[str, dict[str, Points]]:
    """Points by index by what is shown."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for cost in sorted(costs, key=lambda one: one.size):
        for one in cost.servables:
            for what, value in (
                ("index, tune and save, seconds", one.index_seconds + one.save_seconds),
                ("on disk, MiB", one.disk_bytes / 2**20),
                ("server's memory, MiB", one.served_bytes / 2**20),
                ("one request over gRPC, p50 ms", one.p50_ms),
            ):
                panels.setdefault(what, {}).setdefault(one.index, []).append((cost.size, value))
    return {what: dict(curves) for what, curves in panels.items()}


def _panel(parent: ET.Element, what: str, curves: Mapping[str, Points], *, legend: bool) -> None:
    """One chart, both axes logarithmic."""
    sizes = [size for points in curves.values() for size, _ in points]
    values = [value for points in curves.values() for _, value in points]
    left, right = _powers(sizes)
    low, high = _powers(values)

    def x(size: float) -> float:
        return _LEFT + (math.log10(size) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (math.log10(max(value, 10**low)) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    _text(parent, _LEFT, _TOP - 12, what, "start").set("font-weight", "bold")
    for power in range(left, right + 1):
        _line(parent, (x(10**power), y(10**low)), (x(10**power), y(10**high)))
        _text(parent, x(10**power), _HEIGHT - _BOTTOM + 16, f"{10**power:,}", "middle")
    for power in range(low, high + 1):
        _line(parent, (x(10**left), y(10**power)), (x(10**right), y(10**power)))
        _text(parent, _LEFT - 6, y(10**power) + 4, f"{10.0**power:,g}", "end")
    for row, (index, points) in enumerate(curves.items()):
        color = _COLORS.get(index, "#555")
        line = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in points)
        style = {"fill": "none", "stroke": color, "stroke-width": "2"}
        ET.SubElement(parent, "polyline", {"points": line, **style})
        for size, value in points:
            place = {"cx": f"{x(size):.1f}", "cy": f"{y(value):.1f}", "r": "3", "fill": color}
            tip = ET.SubElement(ET.SubElement(parent, "circle", place), "title")
            tip.text = f"{index}, {size:,} candidates: {value:.3g}"
        if legend:
            _text(parent, _LEFT + 10, _TOP + 16 + 15 * row, index, "start").set("fill", color)


def _powers(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around some values, at least one apart."""
    low = math.floor(math.log10(max(min(values), 1e-3)))
    return low, max(math.ceil(math.log10(max(values))), low + 1)


def _line(parent: ET.Element, start: tuple[float, float], end: tuple[float, float]) -> None:
    places = {
        "x1": f"{start[0]:.1f}",
        "y1": f"{start[1]:.1f}",
        "x2": f"{end[0]:.1f}",
        "y2": f"{end[1]:.1f}",
    }
    ET.SubElement(parent, "line", {**places, "stroke": "#ddd"})


def _text(parent: ET.Element, x: float, y: float, text: str, anchor: str) -> ET.Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    element = ET.SubElement(parent, "text", place)
    element.text = text
    return element
