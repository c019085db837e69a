"""A replay as one self-contained HTML page."""

from collections.abc import Iterator

from markupsafe import Markup

from shortlist.clients.cli.output import number
from shortlist.export.replay.result import Changed, OutcomeFigures, Replay
from shortlist.export.replay.words import facts, interval_words, moment, outcome_words, verdict
from shortlist.export.report.charts import Axis, Bars, bar_chart, nice_ticks, percent
from shortlist.export.report.page import Cell, Figure, Table, render_page

__all__ = ["render_replay"]


def render_replay(replay: Replay) -> str:
    """Return a replay as HTML; the same replay gives the same text."""
    outcomes = replay.outcomes
    first, second = replay.sides
    return render_page(
        "replay.html",
        title=f"{first.name} and {second.name}",
        summary=verdict(replay),
        facts=f"{facts(replay)}.",
        cards=list(_cards(replay)),
        limits=_limits(replay),
        sides=_sides(replay),
        errors=[
            f"{side.name} failed {count:,} times: {message}"
            for side in replay.sides
            for message, count in side.errors.items()
        ],
        left_out=list(replay.left_out.items()),
        log_notes=replay.notes,
        overlaps=_overlaps(replay),
        outcomes=None if outcomes is None else _outcomes(replay, outcomes),
        outcome_words="" if outcomes is None else f"{outcome_words(outcomes)}.",
        notes=[]
        if outcomes is None
        else [f"{note[0].upper()}{note[1:]}." for note in outcomes.notes],
        changed=[_changed(replay, entry) for entry in replay.changed],
    )


def _cards(replay: Replay) -> Iterator[tuple[str, str, str]]:
    yield "Queries", f"{replay.queries:,}", f"of {replay.recorded:,} in the log"
    if replay.overlap is not None and replay.same_lists is not None:
        same = f"{percent(replay.same_lists)} of the lists are the same"
        yield f"Overlap@{replay.k}", percent(replay.overlap), same
    if replay.rank_correlation is not None:
        yield "Kendall's tau", f"{replay.rank_correlation:.2f}", "over candidates in both lists"
    yield "New empty lists", f"{replay.new_empty:,}", ""
    if replay.outcomes is not None:
        first, second, _ = replay.outcomes.hit_rates
        interval = interval_words(replay.outcomes.difference_interval, sign="+")
        yield f"Hit rate@{replay.k}", percent(second), f"{percent(first)} before; change {interval}"


def _limits(replay: Replay) -> Table:
    names = [side.name for side in replay.sides]
    return Table(
        caption=verdict(replay),
        columns=["Measure", *names, "Worse by", "Allowed", "Verdict"],
        rows=[
            [
                Cell(text=limit.name),
                *(Cell(text=number(value, ".4g")) for value in (limit.first, limit.second)),
                Cell(text=f"{limit.worse_by:.4g}"),
                Cell(text=f"{limit.allowed:.4g}"),
                Cell(text="kept" if limit.kept else "broken", best=not limit.kept),
            ]
            for limit in replay.limits
        ],
    )


def _sides(replay: Replay) -> Table:
    rows = [
        ("Failed", [f"{side.failed:,}" for side in replay.sides]),
        ("Empty lists", [f"{side.empty:,}" for side in replay.sides]),
        ("Unknown users", [number(side.unknown_users, ",") for side in replay.sides]),
        ("Different candidates", [f"{side.distinct:,}" for side in replay.sides]),
        ("Latency p50, ms", [number(side.p50_ms, ".2f") for side in replay.sides]),
        ("Latency p99, ms", [number(side.p99_ms, ".2f") for side in replay.sides]),
    ]
    return Table(
        caption="Both versions",
        columns=["", *(side.name for side in replay.sides)],
        rows=[[Cell(text=name), *(Cell(text=value) for value in values)] for name, values in rows],
    )


def _overlaps(replay: Replay) -> Figure:
    steps = len(replay.overlaps) - 1
    svg = bar_chart(
        [f"{100 * step // steps}" for step in range(steps + 1)],
        [Bars(name="lists", values=replay.overlaps)],
        x_label="% of the first version's list in the second's",
        y=Axis(
            label="lists",
            ticks=nice_ticks(0, max(replay.overlaps)),
            written=lambda count: f"{count:,g}",
        ),
        label=f"Number of lists by overlap, {sum(replay.overlaps):,} in all",
    )
    return Figure(title="Overlap of the lists", note="", svg=Markup(svg))


def _outcomes(replay: Replay, outcomes: OutcomeFigures) -> Table:
    names = [*(side.name for side in replay.sides), "recorded lists"]
    rows = [
        [Cell(text=name), Cell(text=percent(rate)), Cell(text=interval_words(interval))]
        for name, rate, interval in zip(names, outcomes.hit_rates, outcomes.intervals, strict=True)
    ]
    change = f"{outcomes.difference:+.1%}"
    interval = interval_words(outcomes.difference_interval, sign="+")
    rows.append([Cell(text="Change"), Cell(text=change), Cell(text=interval)])
    return Table(
        caption=f"Hit rate@{replay.k}", columns=["", "Hit rate", "95% interval"], rows=rows
    )


def _changed(replay: Replay, entry: Changed) -> Table:
    who = entry.user_id or "no user id"
    when = f", {moment(entry.time)}" if entry.time else ""
    history = f", after {', '.join(entry.history)}" if entry.history else ""
    rows = []
    for rank in range(max(len(entry.before), len(entry.after))):
        cells = [Cell(text=str(rank + 1))]
        for own, other in ((entry.before, entry.after), (entry.after, entry.before)):
            name = own[rank] if rank < len(own) else ""
            chosen = f"✓ {name}" if name in entry.chosen else name
            cells.append(Cell(text=chosen, best=bool(name) and name not in other))
        rows.append(cells)
    return Table(
        caption=f"{who}{when}{history}: {percent(entry.overlap, 0)} in common",
        columns=["Rank", *(side.name for side in replay.sides)],
        rows=rows,
        numeric=False,
    )
