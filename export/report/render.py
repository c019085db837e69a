"""Renders a report as one self-contained HTML file."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from shortlist.export.config import Protocol
from shortlist.export.evaluation.judge import Judged
from shortlist.export.report import figures, tables
from shortlist.export.report.charts import percent
from shortlist.export.report.content import Report
from shortlist.export.report.page import render_page

__all__ = ["render"]

_CAPTIONS: Mapping[Protocol, str] = {
    "seen_excluded": "Seen candidates excluded",
    "seen_kept": "Seen candidates kept",
}


def render(report: Report) -> str:
    """Return the report as HTML; the same report gives the same text.

    The page loads nothing and runs nothing. All strings of the data are escaped.
    """
    return render_page("report.html", **_view(report))


def _view(report: Report) -> dict[str, Any]:
    """Variables of the template."""
    return {
        "report": report,
        "title": _title(report),
        "recall_figure": figures.recall_figure(report.indexes) if report.indexes else None,
        "indexes": tables.index_table(report.indexes) if report.indexes else None,
        "gates": tables.gate_table(report.gates) if report.gates else None,
        "configuration": list(
            tables.configuration_tables(report.config, report.settings, report.packages)
        ),
        **(_judged_view(report) if report.judged else _rated_view(report)),
    }


def _rated_view(report: Report) -> dict[str, Any]:
    """Variables for a model that was trained elsewhere."""
    summary = "Towers that were trained elsewhere."
    if report.rates:
        shares = [f"{rate * 100:.1f} in the top {_k(name)}" for name, rate in report.rates.items()]
        summary = (
            f"Of 100 interactions, the model ranks {' and '.join(shares)} of all candidates, seen "
            "ones included."
        )
    rates = [(tables.metric_name(name), percent(rate), "") for name, rate in report.rates.items()]
    return {
        "summary": summary,
        "cards": [*rates, *_publication_cards(report)],
        "rates_table": tables.rates_table(report.rates) if report.rates else None,
        "held_out": None,
    }


def _k(name: str) -> str:
    return name.rpartition("@")[2]


def _judged_view(report: Report) -> dict[str, Any]:
    """Variables for a model that was judged alongside baselines."""
    judged = [_renamed(row) for row in report.judged]
    model = judged[0].evaluation
    assert model is not None, "the model itself is always judged"
    protocol = report.protocol
    protocols = [protocol, *(other for other in _CAPTIONS if other != protocol)]
    protocols = [shown for shown in protocols if shown in model.metrics]
    ks = sorted(
        int(name.split("@")[1]) for name in model.metrics[protocol] if name.startswith("hit_rate@")
    )
    few = max((k for k in ks if k <= 10), default=ks[0])
    curves = []
    if report.records:
        curves.append(figures.loss_figure(report.records))
        validation = figures.validation_figure(report.records, report.epochs)
        if validation is not None:
            curves.append(validation)
    shown_ks = sorted({few, ks[-1]})
    return {
        "summary": _summary(judged, protocol, few, ks[-1]),
        "cards": list(_cards(report, judged, shown_ks)),
        "rating": model.rating,
        "problems": [row for row in judged if row.problem],
        "held_out": model.held_out,
        "metrics": [tables.metrics_table(judged, shown, _CAPTIONS[shown]) for shown in protocols],
        "rates": [figures.hit_rate_figure(judged, shown) for shown in protocols],
        "rates_table": None,
        "curves": curves,
        "bands_figure": figures.bands_figure(judged, protocol),
        "breadth": tables.breadth_table(judged, protocol, shown_ks),
        "activity_figure": figures.activity_figure(judged, few, protocol),
        "activity": tables.activity_table(judged, protocol, shown_ks),
        "k": few,
    }


def _renamed(judged: Judged) -> Judged:
    names = {
        "ease": "EASE",
        "decayed_ease": "decayed EASE",
        "ials": "iALS",
        "item_knn": "item-kNN",
        "recent_popularity": "recent popularity",
    }
    return replace(judged, name=names.get(judged.name, judged.name))


def _title(report: Report) -> str:
    return (
        f"Recipe {report.model}"
        if report.version is None
        else f"{report.model}, version {report.version}"
    )


def _summary(judged: list[Judged], protocol: Protocol, few: int, many: int) -> str:
    """Headline of one or two sentences, without jargon."""
    rates = [
        (row.name, row.evaluation.metrics[protocol]) for row in judged if row.evaluation is not None
    ]
    own = rates[0][1]
    chosen, recommended = (
        ("candidates that users chose for the first time, unseen by training", "recommends to")
        if protocol == "seen_excluded"
        else ("choices that training did not see, repeated ones included", "ranks first for")
    )
    words = (
        f"Of 100 {chosen}, {own[f'hit_rate@{few}'] * 100:.1f} are among the {few} that the model "
        f"{recommended} the user"
    )
    if many != few:
        words += f", and {own[f'hit_rate@{many}'] * 100:.1f} among its top {many}"
    popular = dict(rates[1:]).get("popularity")
    if popular is None:
        return f"{words}."
    theirs = popular[f"hit_rate@{few}"]
    words += f". Recommending the most popular candidates to all finds {theirs * 100:.1f}"
    if many != few:
        words += f" and {popular[f'hit_rate@{many}'] * 100:.1f}"
    if own[f"hit_rate@{few}"] <= theirs:
        words += f": at {few}, this model is no better than popularity"
    return f"{words}."


def _cards(report: Report, judged: list[Judged], ks: list[int]) -> Any:
    """Headline numbers: label, value, comparison."""
    model = judged[0].evaluation
    assert model is not None
    popular = next(
        (row.evaluation for row in judged[1:] if row.name == "popularity" and row.evaluation),
        None,
    )
    for k in ks:
        name = f"hit_rate@{k}"
        value = model.metrics[report.protocol][name]
        more = ""
        theirs = popular.metrics[report.protocol][name] if popular is not None else 0.0
        if theirs > 0:
            more = f"{value / theirs:.1f} × popularity's {percent(theirs)}"
        yield f"Hit rate@{k}, {report.protocol.replace('_', ' ')}", percent(value), more
    few = ks[0]
    coverage = model.metrics[report.protocol][f"coverage@{few}"]
    yield f"Coverage@{few}", percent(coverage), "of the corpus is recommended to at least one user"
    yield from _publication_cards(report)


def _publication_cards(report: Report) -> Iterator[tuple[str, str, str]]:
    if report.indexes:
        best = min(report.indexes, key=lambda index: index.latency_ms)
        yield "Fastest index", f"{best.latency_ms:.2g} ms", f"{best.kind}, recall {best.recall:.3f}"
    if report.gates:
        verdicts = Counter(
            str(result.verdict) for results in report.gates.values() for result in results
        )
        passed = verdicts.pop("passed", 0)
        others = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        yield "Gates", f"{passed} passed", others or "all of them"
