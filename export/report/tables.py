"""Tables of a report: numbers with their intervals, beside the baselines'."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shortlist.export.evaluation.evaluate import Evaluation
from shortlist.export.evaluation.judge import Judged
from shortlist.export.report._words import size_in_words
from shortlist.export.report.content import IndexFacts
from shortlist.serving.repository.version import GateResult

__all__ = [
    "Cell",
    "Table",
    "activity_table",
    "breadth_table",
    "configuration_tables",
    "gate_table",
    "index_table",
    "metric_name",
    "metrics_table",
]

_NAMES = {
    "hit_rate": "Hit rate",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "Coverage",
    "popularity_lift": "Popularity lift",
}
_BREADTH = ("coverage", "popularity_lift")
_HIT_RATE = "hit_rate@"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: What it says.
        more: Said smaller, below.
        best: Whether it is the best of its row.
        kind: A class of the page for its look; empty for none.
    """

    text: str
    more: str = ""
    best: bool = False
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: What it shows.
        columns: Heads, the first column's included.
        rows: As long as `columns` each.
        numeric: Whether all but the first column are numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: bool = True


def metric_name(name: str) -> str:
    """`hit_rate@10` as people write it: `Hit rate@10`."""
    kind, at, k = name.partition("@")
    return f"{_NAMES.get(kind, kind.replace('_', ' ').capitalize())}{at}{k}"


def metrics_table(judged: Sequence[Judged], protocol: str, caption: str) -> Table:
    """Hit rate, NDCG and MRR of the model and its baselines, with intervals."""
    model = _of(judged)
    # At k = 1 the three are the same.
    names = [
        name
        for name in model.metrics[protocol]
        if not name.startswith(_BREADTH) and name not in ("ndcg@1", "mrr@1")
    ]
    return Table(
        caption=caption,
        columns=["Metric", *_heads(judged)],
        rows=[_row(judged, protocol, name) for name in names],
    )


def breadth_table(judged: Sequence[Judged], protocol: str, ks: Sequence[int]) -> Table:
    """Coverage and popularity lift of the model and its baselines."""
    model = _of(judged)
    names = [
        f"{kind}@{k}" for kind in _BREADTH for k in ks if f"{kind}@{k}" in model.metrics[protocol]
    ]
    return Table(
        caption="Coverage and popularity lift, seen candidates excluded",
        columns=["Metric", *_heads(judged)],
        rows=[_row(judged, protocol, name, mark=False) for name in names],
    )


def activity_table(judged: Sequence[Judged], protocol: str, ks: Sequence[int]) -> Table:
    """Hit rates by how active users are; popularity's below, if it was judged."""
    model = _of(judged)
    popular = next((one.evaluation for one in judged if one.name == "popularity"), None)
    rows = []
    for number, bucket in enumerate(model.activity):
        cells = [
            Cell(text=f"{bucket.fewest:,}–{bucket.most:,}"),
            Cell(text=f"{bucket.num_users:,}"),
            Cell(text=f"{bucket.num_held_out:,}"),
        ]
        for name in (f"{_HIT_RATE}{k}" for k in ks):
            theirs = None if popular is None else popular.activity[number].metrics[protocol][name]
            cells.append(
                Cell(
                    text=f"{bucket.metrics[protocol][name]:.4f}",
                    more="" if theirs is None else f"popularity {theirs:.4f}",
                )
            )
        rows.append(cells)
    return Table(
        caption="Users by interactions in the training part, seen excluded",
        columns=[
            "Interactions",
            "Users",
            "Held out",
            *(metric_name(f"{_HIT_RATE}{k}") for k in ks),
        ],
        rows=rows,
    )


def index_table(indexes: Sequence[IndexFacts]) -> Table:
    """What each servable gives and costs."""
    return Table(
        caption="Published servables",
        columns=["Servable", f"Recall@{indexes[0].k}", "ms per query", "On disk"],
        rows=[
            [
                Cell(text=one.servable, more=_parameters(one.parameters)),
                Cell(
                    text=f"{one.recall:.4f}",
                    more=_asked_for(one),
                ),
                Cell(text=f"{one.latency_ms:.3g}", kind="timing"),
                Cell(text=size_in_words(one.size_bytes)),
            ]
            for one in indexes
        ],
    )


def _asked_for(index: IndexFacts) -> str:
    if index.exact:
        return "exact"
    return "approximate" if index.target is None else f"asked for {index.target:g}"


def gate_table(gates: Mapping[str, Sequence[GateResult]]) -> Table:
    """What each gate required, and what it measured of each servable."""
    by_gate: dict[str, dict[str, GateResult]] = {}
    for servable, found in gates.items():
        for one in found:
            by_gate.setdefault(one.gate, {})[servable] = one
    rows = []
    for gate, results in by_gate.items():
        required = dict.fromkeys(one.required for one in results.values())
        cells = [Cell(text=gate), Cell(text="; or ".join(required))]
        for servable in gates:
            result = results.get(servable)
            cells.append(
                Cell(text="–")
                if result is None
                else Cell(
                    text=str(result.verdict),
                    more=result.measured,
                    kind=f"verdict {result.verdict} timing",
                )
            )
        rows.append(cells)
    return Table(
        caption="What was required, and what was found",
        columns=["Gate", "Required", *gates],
        rows=rows,
        numeric=False,
    )


def configuration_tables(config: Mapping[str, Any], packages: Mapping[str, str]) -> Iterator[Table]:
    """Everything that was configured, section by section, and the packages' versions."""
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    if plain:
        sections = {"export": plain, **sections}
    for name, values in sections.items():
        if values:
            yield _settings(name, values)
    yield _settings("packages", packages, heads=("Package", "Version"))


def _settings(
    name: str, values: Mapping[str, Any], heads: tuple[str, str] = ("Setting", "Value")
) -> Table:
    return Table(
        caption=name,
        columns=heads,
        rows=[[Cell(text=key), Cell(text=_setting(value))] for key, value in values.items()],
        numeric=False,
    )


def _setting(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case list() | tuple():
            return ", ".join(_setting(one) for one in value)
        case _:
            return json.dumps(value, ensure_ascii=False)


def _parameters(parameters: Mapping[str, Any]) -> str:
    found = [f"{key} {_setting(value)}" for key, value in parameters.items() if value is not None]
    return ", ".join(found).replace("_", " ")


def _of(judged: Sequence[Judged]) -> Evaluation:
    model = judged[0].evaluation
    assert model is not None, "the model itself is always judged"
    return model


def _heads(judged: Sequence[Judged]) -> list[str]:
    return [one.name for one in judged]


def _row(judged: Sequence[Judged], protocol: str, name: str, *, mark: bool = True) -> list[Cell]:
    values = [
        None if one.evaluation is None else one.evaluation.metrics[protocol].get(name)
        for one in judged
    ]
    best = max((value for value in values if value is not None), default=None)
    cells = [Cell(text=metric_name(name))]
    for one, value in zip(judged, values, strict=True):
        if one.evaluation is None or value is None:
            cells.append(Cell(text="–"))
            continue
        interval = one.evaluation.intervals.get(protocol, {}).get(name)
        cells.append(
            Cell(
                text=f"{value:.4f}",
                more="" if interval is None else f"{interval.low:.4f} – {interval.high:.4f}",
                # What looks equal to the best is as good.
                best=mark and len(judged) > 1 and f"{value:.4f}" == f"{best:.4f}",
            )
        )
    return cells
