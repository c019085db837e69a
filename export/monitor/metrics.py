"""Figures in Prometheus's text format, for the textfile collector or the status exporter."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from shortlist.export.monitor.figures import Figures, Served
from shortlist.export.monitor.measure import Monitoring

__all__ = ["HELP", "PREFIX", "exposition"]

PREFIX: Final = "shortlist_monitor_"
HELP: Final = {
    "last_success_timestamp_seconds": "Time of the last measurement",
    "interval_seconds": "Time between measurements",
    "last_list_timestamp_seconds": "Time of the last list",
    "lists": "Lists in the request log",
    "impressions": "Candidates in these lists",
    "users": "Users who got these lists",
    "interactions": "Interactions within the window after a list",
    "hit_rate": "Share of these interactions whose candidate is in the top k of the list",
    "hit_rate_low": "Lower end of the 95% interval of the hit rate",
    "hit_rate_high": "Upper end of the 95% interval of the hit rate",
    "click_rate": "Share of the impressions that their user chose",
    "unknown_users": "Share of the lists for a user id that training never met",
    "unknown_history": "Share of the events in histories whose candidate the version lacks",
    "empty": "Share of the lists without a candidate",
    "coverage": "Share of the corpus that was shown",
    "version_age_seconds": "Time from the export of the version to its last list",
    "score_stability_index": "Population stability index of the first candidates' scores",
    "history_stability_index": "Population stability index of the lengths of histories",
}


class _Sample(NamedTuple):
    metric: str
    labels: Mapping[str, str]
    value: float | None


def exposition(monitoring: Monitoring) -> str:
    """Return the figures in the text format; those that are unknown are left out.

    Series of segments have the label `segment`; those without it are about all lists.
    """
    samples = [*_samples(monitoring)]
    lines: list[str] = []
    for metric, text in HELP.items():
        of_metric = [each for each in samples if each.metric == metric and each.value is not None]
        if not of_metric:
            continue
        lines += [f"# HELP {PREFIX}{metric} {text}.", f"# TYPE {PREFIX}{metric} gauge"]
        for sample in of_metric:
            pairs = ",".join(f"{name}={_quoted(text)}" for name, text in sample.labels.items())
            shown = f"{{{pairs}}}" if pairs else ""
            lines.append(f"{PREFIX}{metric}{shown} {sample.value:.15g}")
    return "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    """Return a label's value; the format knows only these three escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _samples(monitoring: Monitoring) -> Iterator[_Sample]:
    yield _Sample("last_success_timestamp_seconds", {}, monitoring.time)
    yield _Sample("interval_seconds", {}, monitoring.every)
    for each in monitoring.served:
        labels = {
            "model": each.model,
            "version": "" if each.version is None else str(each.version),
            "label": each.label or "",
        }
        yield from _of_figures(each.figures, labels)
        yield from _of_version(each, labels)
        for segment, figures in each.segments.items():
            yield from _of_figures(figures, {**labels, "segment": segment})


def _of_figures(figures: Figures, labels: Mapping[str, str]) -> Iterator[_Sample]:
    interval = figures.interval
    for metric in (
        *("lists", "impressions", "users", "interactions", "hit_rate", "click_rate"),
        *("unknown_users", "unknown_history", "empty", "coverage"),
    ):
        yield _Sample(metric, labels, getattr(figures, metric))
    if interval is not None:
        yield _Sample("hit_rate_low", labels, interval.low)
        yield _Sample("hit_rate_high", labels, interval.high)


def _of_version(served: Served, labels: Mapping[str, str]) -> Iterator[_Sample]:
    yield _Sample("last_list_timestamp_seconds", labels, served.last)
    yield _Sample("version_age_seconds", labels, served.age)
    yield _Sample("score_stability_index", labels, served.drift.scores)
    yield _Sample("history_stability_index", labels, served.drift.histories)
