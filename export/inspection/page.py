"""An inspection as one self-contained HTML page."""

from collections.abc import Iterator
from datetime import date

from markupsafe import Markup

from shortlist.export.data.columns import FileColumns
from shortlist.export.data.config import without_password
from shortlist.export.data.reading.faults import Fault
from shortlist.export.inspection.facts import AttributeFacts, DataProfile, Distribution
from shortlist.export.inspection.inspection import Inspection
from shortlist.export.report.charts import (
    Axis,
    Bars,
    Series,
    bar_chart,
    line_chart,
    log_ticks,
    nice_ticks,
    percent,
)
from shortlist.export.report.page import Cell, Figure, Table, render_page

__all__ = ["render_inspection"]

_LABELS = 5  # dates below a plot over time


def render_inspection(inspection: Inspection) -> str:
    """Return an inspection as HTML; the same inspection gives the same text."""
    facts = inspection.facts
    return render_page(
        "inspection.html",
        inspection=inspection,
        title=without_password(inspection.source.source) if facts is None else facts.name,
        summary=_summary(inspection),
        cards=[] if facts is None else list(_cards(facts)),
        faults=_fault_table(inspection.faults) if inspection.faults else None,
        columns=[_column_table(file) for file in inspection.files],
        figures=[] if facts is None else list(_figures(facts)),
        counts=None if facts is None else _count_table(facts),
        attributes=_attribute_table(facts.attributes) if facts and facts.attributes else None,
    )


def _summary(inspection: Inspection) -> str:
    split = inspection.split
    if inspection.problem is not None:
        return "shortlist export refuses this data as it is."
    assert split is not None
    reason = f", because {split.reason}" if split.reason else ""
    return (
        f"shortlist export reads this data, and splits it by {split.method}{reason}: {split.parts}."
    )


def _cards(facts: DataProfile) -> Iterator[tuple[str, str, str]]:
    yield "Interactions", f"{facts.interactions:,}", ""
    yield "Users", f"{facts.users:,}", f"median {facts.per_user.median:g} interactions"
    without = facts.popularity.without
    yield "Candidates", f"{facts.candidates:,}", f"{without:,} without interactions"
    if facts.first is not None and facts.last is not None:
        first, last = date.fromisoformat(facts.first[:10]), date.fromisoformat(facts.last[:10])
        yield "Days", f"{(last - first).days + 1:,}", f"{first} to {last} (UTC)"
    share = percent(facts.repeats / facts.interactions)
    yield "Repeats", share, "are with a candidate that the user had before"


def _fault_table(faults: tuple[Fault, ...]) -> Table:
    return Table(
        caption="Rows that cannot be used",
        columns=["Fault", "Rows", "Where", "Remedy"],
        rows=[
            [
                Cell(text=fault.name),
                Cell(text=f"{fault.count:,}"),
                Cell(text=fault.where),
                Cell(text=fault.remedy),
            ]
            for fault in faults
        ],
        numeric=False,
    )


def _column_table(file: FileColumns) -> Table:
    return Table(
        caption=f"{file.name}, {file.part}",
        columns=["Column", "Type", "Read as", "Examples", f"Different in {file.sampled:,} rows"],
        rows=[
            [
                Cell(text=column.name),
                Cell(
                    text=column.kind, more=f"{column.missing:,} missing" if column.missing else ""
                ),
                Cell(text=column.role or "not read", more=column.why),
                Cell(text=", ".join(column.examples)),
                Cell(text=f"{column.distinct:,}"),
            ]
            for column in file.columns
        ],
        numeric=False,
    )


def _count_table(facts: DataProfile) -> Table:
    return Table(
        caption="Interactions",
        columns=["Per", "Median", "Mean", "90th percentile", "Most"],
        rows=[
            [
                Cell(text=name),
                Cell(text=f"{counts.median:,g}"),
                Cell(text=f"{counts.mean:,.1f}"),
                Cell(text=f"{counts.p90:,g}"),
                Cell(text=f"{counts.most:,}"),
            ]
            for name, counts in (("user", facts.per_user), ("candidate", facts.per_candidate))
        ],
    )


def _attribute_table(attributes: tuple[AttributeFacts, ...]) -> Table:
    return Table(
        caption="Attributes and contexts",
        columns=["Name", "Of", "Type", "Known", "Different", "Examples"],
        rows=[
            [
                Cell(text=attribute.name),
                Cell(text=attribute.of),
                Cell(text=attribute.kind),
                Cell(text=percent(attribute.known / attribute.total)),
                Cell(text=f"{attribute.distinct:,}"),
                Cell(text=", ".join(attribute.examples)),
            ]
            for attribute in attributes
        ],
        numeric=False,
    )


def _figures(facts: DataProfile) -> Iterator[Figure]:
    yield _activity(facts.per_user)
    yield _popularity(facts)
    if len(facts.periods) > 1:
        yield _times(facts)


def _activity(counts: Distribution) -> Figure:
    members = [band.members for band in counts.bands]
    svg = bar_chart(
        [str(band) for band in counts.bands],
        [Bars(name="users", values=members)],
        x_label="interactions of a user",
        y=Axis(label="users", ticks=nice_ticks(0, max(members)), written=lambda n: f"{n:,g}"),
        label="Users by number of interactions: "
        + "; ".join(f"{band.members:,} with {band}" for band in counts.bands),
    )
    return Figure(title="Activity of users", note="", svg=Markup(svg))


def _popularity(facts: DataProfile) -> Figure:
    curve = facts.popularity.curve
    most, least = curve[0][1], curve[-1][1]
    svg = line_chart(
        [Series(name="interactions", points=curve)],
        x=Axis(
            label="candidates, the most popular first",
            ticks=log_ticks(1, max(curve[-1][0], 2)),
            log=True,
            written=lambda place: f"{place:,g}",
        ),
        y=Axis(
            label="interactions",
            ticks=log_ticks(least, max(most, least + 1)),
            log=True,
            written=lambda count: f"{count:,g}",
        ),
        label=f"Interactions by popularity, from {most:,} of the first to {least:,} of number "
        f"{curve[-1][0]:,}",
    )
    return Figure(
        title="Popularity of candidates",
        note=f"Of all candidates, {facts.popularity.shares} of the interactions.",
        svg=Markup(svg),
    )


def _times(facts: DataProfile) -> Figure:
    points = [(float(place), float(count)) for place, (_, count) in enumerate(facts.periods)]
    starts = [start for start, _ in facts.periods]
    step = max(-(-(len(points) - 1) // (_LABELS - 1)), 1)
    ticks = list(range(0, (len(points) - 1) // step * step + step + 1, step))

    def written(place: float) -> str:
        return starts[int(place)] if place < len(starts) else ""

    svg = line_chart(
        [Series(name="interactions", points=points)],
        x=Axis(label="beginning of the period", ticks=ticks, written=written),
        y=Axis(
            label="interactions",
            ticks=nice_ticks(0, max(count for _, count in points)),
            written=lambda count: f"{count:,g}",
        ),
        label=f"Interactions over time, {starts[0]} to {starts[-1]}",
    )
    return Figure(title="Interactions over time", note="", svg=Markup(svg))
