"""The picture of `shortlist bench export`: four costs over the number of candidates."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from shortlist.export.report.charts import SLOTS, Axis, Series, line_chart, log_ticks, picture

if TYPE_CHECKING:
    from shortlist.export.bench.cost import ExportCost, ServableCost

__all__ = ["cost_picture", "short_size"]

_CHARTS: "Final[dict[str, Callable[[ServableCost], float]]]" = {
    "index, tune and save, seconds": lambda cost: cost.index_seconds + cost.save_seconds,
    "on disk, MiB": lambda cost: cost.disk_bytes / 2**20,
    "memory of the server, MiB": lambda cost: cost.served_bytes / 2**20,
    "one request over gRPC, p50 ms": lambda cost: cost.p50_ms,
}


def cost_picture(costs: "Sequence[ExportCost]") -> str:
    """SVG file with export time, disk, memory of the server and latency of each index.

    Args:
        costs: Of one kind of vectors, at one or more sizes.
    """
    costs = sorted(costs, key=lambda cost: cost.size)
    first = costs[0]
    charts = {name: _chart(name, costs, measure) for name, measure in _CHARTS.items()}
    return picture(
        f"Cost by corpus size: {first.vectors} vectors of {first.dimension} dimensions",
        charts,
        [(slot % SLOTS, servable.index) for slot, servable in enumerate(first.servables)],
    )


def _chart(
    name: str, costs: "Sequence[ExportCost]", measure: "Callable[[ServableCost], float]"
) -> str:
    series = [
        Series(
            name=servable.index,
            points=[(cost.size, max(measure(cost.servables[place]), 1e-3)) for cost in costs],
            slot=place % SLOTS,
        )
        for place, servable in enumerate(costs[0].servables)
    ]
    values = [value for line in series for _, value in line.points]
    return line_chart(
        series,
        x=Axis(
            label="candidates",
            ticks=log_ticks(costs[0].size, costs[-1].size),
            log=True,
            written=short_size,
        ),
        y=Axis(
            label=name,
            ticks=log_ticks(min(values), max(values)),
            log=True,
            written=lambda value: f"{float(f'{value:.3g}'):,g}",
        ),
        label=f"{name}, by number of candidates",
    )


def short_size(size: float) -> str:
    """Number of candidates such as `100k` or `1M`, if it is a round one."""
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if size % unit == 0:
            return f"{size / unit:.0f}{name}"
    return f"{size:,.0f}"
