"""Charts of a report and of the benchmarks, from the numbers that they show."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from shortlist.export.config import Protocol
from shortlist.export.evaluation.judge import Judged
from shortlist.export.evaluation.metrics import BANDS
from shortlist.export.report.charts import (
    SLOTS,
    Axis,
    Bars,
    Series,
    bar_chart,
    line_chart,
    log_ticks,
    nice_ticks,
    percent,
    picture,
    stacked_chart,
)
from shortlist.export.report.content import IndexFacts
from shortlist.export.report.page import Figure
from shortlist.export.towers.trained import EpochRecord

__all__ = [
    "BAND_NAMES",
    "activity_figure",
    "bands_figure",
    "hit_rate_figure",
    "loss_figure",
    "recall_figure",
    "recall_picture",
    "validation_figure",
]

BAND_NAMES = tuple(
    f"{'top' if not low else 'next' if high < 1 else 'other'} {percent(high - low)}"
    for low, high in zip((0.0, *BANDS), BANDS, strict=False)
)
_SHORTEST = 1e-4  # ms; latencies are rounded to it, and a logarithmic axis has no 0
_LEAST_RECALL = 0.5  # in a picture; lower recalls are not worth serving

Point = tuple[float, float]


def hit_rate_figure(judged: Sequence[Judged], protocol: Protocol) -> Figure:
    """Hit rate of the model and its baselines, by length of the list."""
    seen = _in_words(protocol)
    series = []
    for slot, row in enumerate(judged):
        if row.evaluation is None:
            continue
        rates = _hit_rates(row.evaluation.metrics[protocol])
        intervals = row.evaluation.intervals.get(protocol, {})
        band = [
            (k, intervals[f"hit_rate@{k}"].low, intervals[f"hit_rate@{k}"].high)
            for k, _ in rates
            if f"hit_rate@{k}" in intervals
        ]
        series.append(Series(name=row.name, points=rates, band=band, slot=slot))
    ks = [k for k, _ in series[0].points]
    highest = max(value for line in series for _, value in line.points)
    svg = line_chart(
        series,
        x=Axis(label="length of the list (k)", ticks=ks, log=True, written=lambda k: f"{k:.0f}"),
        y=Axis(label="hit rate", ticks=nice_ticks(0, highest or 1), written=percent),
        label=f"Hit rate at k, {seen}: "
        + "; ".join(f"{line.name} {percent(line.points[-1][1])} at {ks[-1]}" for line in series),
    )
    return Figure(
        title=f"Hit rate by length of the list, {seen}",
        note="Shaded: 95 % intervals." if any(line.band for line in series) else "",
        svg=Markup(svg),
        key=[(f"line s{line.slot}", line.name) for line in series],
    )


def loss_figure(records: Sequence[EpochRecord]) -> Figure:
    """Training loss by epoch."""
    points = [(float(record.epoch), record.loss) for record in records]
    losses = [loss for _, loss in points]
    svg = line_chart(
        [Series(name="loss", points=points)],
        x=_epochs(records),
        y=Axis(label="loss", ticks=nice_ticks(min(losses), max(losses))),
        label=f"Training loss falls from {losses[0]:.3f} to {losses[-1]:.3f} "
        f"in {len(records)} epochs",
    )
    return Figure(title="Loss", note="Mean over the batches of an epoch.", svg=Markup(svg))


def validation_figure(records: Sequence[EpochRecord], epochs: int) -> Figure | None:
    """The metric that stops training; `None` if it was not computed."""
    points = [
        (float(record.epoch), record.validation)
        for record in records
        if record.validation is not None
    ]
    if not points:
        return None
    values = [value for _, value in points]
    svg = line_chart(
        [Series(name="NDCG@100", points=points)],
        x=_epochs(records),
        y=Axis(label="NDCG@100", ticks=nice_ticks(min(values), max(values))),
        label=f"NDCG@100 on the validation part, best {max(values):.4f} after {epochs} epochs",
        mark=(float(epochs), f"best after {epochs}"),
    )
    return Figure(
        title="NDCG@100 on the validation part",
        note=f"The final model is trained for {epochs} epochs on the training and validation part.",
        svg=Markup(svg),
    )


def bands_figure(judged: Sequence[Judged], protocol: Protocol) -> Figure:
    """Parts of the corpus, by popularity, that recommendations come from."""
    known = [(row.name, row.evaluation) for row in judged if row.evaluation is not None]
    rows = [("users' own choices", known[0][1].bands["held_out"])]
    rows += [(name, evaluation.bands[protocol]) for name, evaluation in known]
    svg = stacked_chart(
        rows,
        BAND_NAMES,
        label="Shares of the most popular 1 % of the corpus: "
        + "; ".join(f"{name} {percent(shares[0])}" for name, shares in rows),
    )
    return Figure(
        title=f"Where the top 10 come from, by popularity, {_in_words(protocol)}",
        note="The corpus by descending popularity, compared with the users' own choices.",
        svg=Markup(svg),
        key=[(f"part p{place}", name) for place, name in enumerate(BAND_NAMES)],
    )


def activity_figure(judged: Sequence[Judged], k: int, protocol: Protocol) -> Figure:
    """Hit rate by activity of the users."""
    known = [
        (slot, row.name, row.evaluation.activity)
        for slot, row in enumerate(judged)
        if row.evaluation is not None
    ]
    bars = [
        Bars(
            name=name,
            values=[
                bucket.metrics.get(protocol, {}).get(f"hit_rate@{k}", 0.0) for bucket in buckets
            ],
            slot=slot,
        )
        for slot, name, buckets in known
    ]
    highest = max(value for colour in bars for value in colour.values)
    groups = [f"{bucket.fewest:,}–{bucket.most:,}" for bucket in known[0][2]]
    svg = bar_chart(
        groups,
        bars,
        x_label="earlier interactions",
        y=Axis(label="hit rate", ticks=nice_ticks(0, highest or 1), written=percent),
        label=f"Hit rate@{k} by activity, {_in_words(protocol)}: "
        + "; ".join(
            f"users with {group} interactions {percent(value)}"
            for group, value in zip(groups, bars[0].values, strict=True)
        ),
    )
    return Figure(
        title=f"Hit rate@{k} by activity, {_in_words(protocol)}",
        note="About as many users in each group.",
        svg=Markup(svg),
        key=[(f"bar s{colour.slot}", colour.name) for colour in bars],
    )


def recall_figure(indexes: Sequence[IndexFacts]) -> Figure:
    """Recall against latency of each index; points that are slower and no better are omitted."""
    series = [
        Series(
            name=index.servable,
            points=_front(index.curve),
            ring=(max(index.latency_ms, _SHORTEST), index.recall),
            slot=slot,
        )
        for slot, index in enumerate(indexes)
    ]
    k = indexes[0].k
    svg = _recall_chart(
        series,
        label=f"Recall@{k} against milliseconds per query: "
        + "; ".join(f"{index.servable} {index.recall:.3f}" for index in indexes),
    )
    return Figure(
        title=f"Recall@{k} against latency",
        note=f"Measured during the export on {indexes[0].num_queries:,} queries, one at a time; "
        "a ring marks what is published.",
        svg=Markup(svg),
        key=[(f"line s{line.slot}", line.name) for line in series],
    )


def recall_picture(curves: Mapping[str, Sequence[Point]], *, title: str) -> str:
    """SVG file with recall against latency.

    Args:
        curves: `(latency in ms, recall)` points by index. Points that another of the same
            index beats in both are omitted, and recalls below 0.5 if the index has higher ones.
        title: Shown above.
    """
    series = []
    for number, (name, points) in enumerate(curves.items()):
        front = _front(points)
        served = [point for point in front if point[1] >= _LEAST_RECALL] or front[-1:]
        series.append(Series(name=name, points=served, slot=number % SLOTS))
    chart = _recall_chart(series, label="recall against milliseconds per query")
    return picture(title, {"": chart}, [(line.slot, line.name) for line in series])


def _recall_chart(series: Sequence[Series], *, label: str) -> str:
    latencies = [latency for line in series for latency, _ in line.points]
    recalls = [recall for line in series for _, recall in line.points]
    return line_chart(
        series,
        x=Axis(
            label="ms per query",
            ticks=log_ticks(min(latencies), max(latencies)),
            log=True,
            written=_four_digits,
        ),
        y=Axis(label="recall", ticks=nice_ticks(min(0.9, *recalls), 1.0), written=_four_digits),
        label=label,
    )


def _four_digits(value: float) -> str:
    return f"{value:.4g}"


def _front(points: Sequence[Point]) -> list[Point]:
    """Points of which no faster one has at least their recall, by latency."""
    front: list[Point] = []
    for latency, recall in sorted(points):
        if not front or recall > front[-1][1]:
            front.append((max(latency, _SHORTEST), recall))
    return front


def _in_words(protocol: Protocol) -> str:
    return protocol.replace("_", " candidates ")


def _hit_rates(metrics: Mapping[str, float]) -> list[tuple[int, float]]:
    """`(k, hit rate)`, ascending."""
    rates = [
        (int(name.split("@")[1]), value)
        for name, value in metrics.items()
        if name.startswith("hit_rate@")
    ]
    return sorted(rates)


def _epochs(records: Sequence[EpochRecord]) -> Axis:
    last = records[-1].epoch
    ticks = nice_ticks(0, last, count=6) if last > 6 else list(range(last + 1))
    return Axis(label="epoch", ticks=ticks, written=lambda epoch: f"{epoch:.0f}")
