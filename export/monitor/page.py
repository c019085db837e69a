"""The figures as one self-contained HTML page."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from shortlist.export.evaluation.metrics import Interval
from shortlist.export.monitor.drift import LARGE, LEAST, MODERATE
from shortlist.export.monitor.figures import Figures, Served
from shortlist.export.monitor.measure import Monitoring
from shortlist.export.monitor.words import age, drift, moment, name_of, seconds
from shortlist.export.report.charts import (
    SLOTS,
    Axis,
    Series,
    line_chart,
    nice_ticks,
    percent,
)
from shortlist.export.report.page import Cell, Figure, Table, render_page

__all__ = ["render_monitoring"]

_UNKNOWN = "–"
_LABELS = 5  # times below a plot
_DAY = 86_400


def render_monitoring(monitoring: Monitoring) -> str:
    """Return the figures as HTML; the same figures give the same text."""
    models = list(dict.fromkeys(each.model for each in monitoring.served))
    return render_page(
        "monitor.html",
        title=", ".join(models) or "No lists",
        summary=_summary(monitoring),
        cards=list(_cards(monitoring)),
        notes=monitoring.notes,
        versions=_version_table(monitoring),
        figures=list(_plots(monitoring.served, monitoring.k)),
        segments=_segment_table(monitoring),
        queries=_query_table(monitoring.served),
        k=monitoring.k,
        window=seconds(monitoring.window),
        borders=(MODERATE, LARGE, LEAST),
    )


def _summary(monitoring: Monitoring) -> str:
    if not monitoring.served:
        return f"The request log holds no lists at {moment(monitoring.time)} (UTC)."
    first = min(each.first for each in monitoring.served)
    last = max(each.last for each in monitoring.served)
    return (
        f"What was served from {moment(first)} to {moment(last)} (UTC), and what users chose "
        f"within {seconds(monitoring.window)} after each list."
    )


def _cards(monitoring: Monitoring) -> Iterator[tuple[str, str, str]]:
    served = monitoring.served
    if not served:
        return
    lists = sum(each.figures.lists for each in served)
    yield "Lists", f"{lists:,}", f"{sum(each.figures.impressions for each in served):,} candidates"
    newest = max(served, key=lambda each: each.last)
    figures = newest.figures
    if figures.hit_rate is not None:
        label = f"Hit rate@{monitoring.k}"
        yield label, percent(figures.hit_rate), f"{name_of(newest)}, {_within(figures.interval)}"
    if figures.click_rate is not None:
        yield "Click rate", percent(figures.click_rate, 2), "of the candidates shown were chosen"
    if figures.unknown_users is not None:
        yield "Unknown users", percent(figures.unknown_users), "of the lists"
    if newest.age is not None:
        yield "Age", age(newest.age), "from its export to its last list"


def _within(interval: Interval | None) -> str:
    if interval is None:
        return "too few users for an interval"
    return f"{percent(interval.low)} to {percent(interval.high)}"


def _share(value: float | None, digits: int = 1) -> str:
    return _UNKNOWN if value is None else percent(value, digits)


def _version_table(monitoring: Monitoring) -> Table:
    return Table(
        caption="By version and label",
        columns=[
            *("Version", "Lists", "Users", "Interactions", f"Hit rate@{monitoring.k}"),
            *("Click rate", "Coverage", "Age"),
        ],
        rows=[
            [
                Cell(text=name_of(each), more=f"{moment(each.first)} to {moment(each.last)}"),
                *_common(each.figures),
                Cell(text=_share(each.figures.coverage)),
                Cell(text=_UNKNOWN if each.age is None else age(each.age)),
            ]
            for each in monitoring.served
        ],
    )


def _common(figures: Figures) -> list[Cell]:
    interactions = figures.interactions
    return [
        Cell(text=f"{figures.lists:,}"),
        Cell(text=f"{figures.users:,}"),
        Cell(text=_UNKNOWN if interactions is None else f"{interactions:,}"),
        Cell(
            text=_share(figures.hit_rate),
            more="" if figures.hit_rate is None else _within(figures.interval),
        ),
        Cell(text=_share(figures.click_rate, 2)),
    ]


def _segment_table(monitoring: Monitoring) -> Table | None:
    rows = [
        [Cell(text=name, more=name_of(each)), *_common(figures)]
        for each in monitoring.served
        for name, figures in each.segments.items()
    ]
    if not rows:
        return None
    return Table(
        caption=f"By {monitoring.segmented_by}",
        columns=[
            *("Segment", "Lists", "Users", "Interactions", f"Hit rate@{monitoring.k}"),
            "Click rate",
        ],
        rows=rows,
    )


def _query_table(served: Sequence[Served]) -> Table:
    return Table(
        caption="Queries and scores",
        columns=[
            *("Version", "Unknown users", "Unknown events", "Empty lists"),
            *("Drift of scores", "Drift of histories"),
        ],
        rows=[
            [
                Cell(text=name_of(each)),
                Cell(
                    text=_share(each.figures.unknown_users),
                    more=""
                    if each.drift.unknown_users is None
                    else f"{percent(each.drift.unknown_users)} at the export",
                ),
                Cell(text=_share(each.figures.unknown_history)),
                Cell(text=_share(each.figures.empty)),
                *(
                    Cell(
                        text=_UNKNOWN if index is None else f"{index:.2f}",
                        more=drift(index, origin),
                    )
                    for index, origin in (
                        (each.drift.scores, each.drift.scores_from),
                        (each.drift.histories, each.drift.histories_from),
                    )
                ),
            ]
            for each in served
        ],
    )


def _plots(served: Sequence[Served], k: int) -> Iterator[Figure]:
    shown = list(served)[-SLOTS:]
    starts = [period.start for each in shown for period in each.periods]
    if len(set(starts)) < 2:
        return
    days = all(start % _DAY == 0 for start in starts)
    x = _time_axis(min(starts), max(starts), days=days)
    rates = [
        Series(
            name=name_of(each),
            slot=slot,
            points=[
                (float(period.start), period.hit_rate)
                for period in each.periods
                if period.hit_rate is not None
            ],
        )
        for slot, each in enumerate(shown)
    ]
    rates = [series for series in rates if series.points]
    if rates:
        most = max(rate for series in rates for _, rate in series.points)
        y = Axis(label=f"hit rate@{k}", ticks=nice_ticks(0, most or 0.1), written=percent)
        yield _plot(f"Hit rate@{k} over time", rates, x, y)
    lists = [
        Series(
            name=name_of(each),
            slot=slot,
            points=[(float(period.start), float(period.lists)) for period in each.periods],
        )
        for slot, each in enumerate(shown)
    ]
    most = max(count for series in lists for _, count in series.points)
    ticks = nice_ticks(0, most)
    y = Axis(label="lists", ticks=ticks, written=lambda count: f"{count:,g}")
    yield _plot(f"Lists per {'day' if days else 'hour'}", lists, x, y)


def _plot(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Figure:
    return Figure(
        title=title,
        note="",
        svg=Markup(line_chart(series, x=x, y=y, label=title)),
        key=[(f"line s{each.slot}", each.name) for each in series] if len(series) > 1 else (),
    )


def _time_axis(first: int, last: int, *, days: bool) -> Axis:
    unit = _DAY if days else 3600
    step = max(-(-(last - first) // unit // (_LABELS - 1)), 1) * unit
    form = "%b %d" if days else "%d, %H:%M"
    return Axis(
        label="beginning (UTC)",
        ticks=list(range(first, last + step, step)),
        written=lambda time: datetime.fromtimestamp(time, UTC).strftime(form),
    )
