"""Axes of the charts: where values fall, which ticks they get, and the marks themselves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

__all__ = ["HEIGHT", "WIDTH", "Axis", "Frame", "circle", "line", "nice_ticks", "rect", "text"]

# In units that are pixels on a wide screen; on a phone charts shrink by a fifth.
WIDTH, HEIGHT = 460, 290
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 48


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: What is measured, with its unit.
        ticks: Values with a line and a number, ascending; the first and last end the axis.
        log: Whether distances are ratios; ticks are positive then.
        written: How a tick is written.
    """

    label: str
    ticks: Sequence[float]
    log: bool = False
    written: Callable[[float], str] = lambda value: f"{value:g}"

    def share(self, value: float) -> float:
        """Where a value lies between the axis' ends, 0 to 1."""
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
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The plane of a chart, with its two axes.

    Attributes:
        x: The axis to the right.
        y: The axis upwards.
    """

    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point is drawn."""
        return (
            LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM),
        )

    def grid(self, *, x_lines: bool = True) -> list[str]:
        """Lines, numbers and labels of both axes."""
        low, high = self.x.ticks[0], self.x.ticks[-1]
        bottom, top = self.y.ticks[0], self.y.ticks[-1]
        parts = []
        for value in self.y.ticks:
            parts.append(line(self.at(low, value), self.at(high, value), "grid"))
            x, y = self.at(low, value)
            parts.append(text(x - 8, y + 4, self.y.written(value), "end"))
        for value in self.x.ticks if x_lines else ():
            parts.append(line(self.at(value, bottom), self.at(value, top), "grid"))
            x, y = self.at(value, bottom)
            parts.append(text(x, y + 20, self.x.written(value), "middle"))
        parts.append(line(self.at(low, bottom), self.at(high, bottom), "axis"))
        parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, self.x.label, "middle", "label"))
        return parts


def line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    """A line of a class."""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f"class={quoteattr(kind)}/>"
    )


def text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> str:
    """Words of a class."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">'
        f"{escape(words)}</text>"
    )


def circle(at: tuple[float, float], kind: str, tip: str) -> str:
    """A point that tells its values when it is pointed at."""
    return (
        f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3.5" class="{kind}">'
        f"<title>{escape(tip)}</title></circle>"
    )


def rect(left: float, top: float, width: float, height: float, kind: str, tip: str) -> str:
    """A bar that tells its value when it is pointed at."""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}" class="{kind}"><title>{escape(tip)}</title></rect>'
    )
