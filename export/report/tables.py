"""Tables of a report: metrics with intervals, compared with the baselines."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shortlist.export.config import Protocol
from shortlist.export.evaluation.evaluate import Evaluation
from shortlist.export.evaluation.judge import Judged
from shortlist.export.report.content import IndexFacts
from shortlist.export.report.page import Cell, Table
from shortlist.serving.repository.version import GateResult

__all__ = [
    "activity_table",
    "breadth_table",
    "configuration_tables",
    "gate_table",
    "index_table",
    "metric_name",
    "metrics_table",
    "rates_table",
    "size_in_words",
]

_NAMES = {
    "hit_rate": "Hit rate",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "Coverage",
    "popularity_lift": "Popularity lift",
    "user_ndcg": "User NDCG",
    "user_recall": "User recall",
}
_BREADTH = ("coverage", "popularity_lift")
_HIT_RATE = "hit_rate@"


def size_in_words(size_bytes: int) -> str:
    """Return a size such as `7.8 MB`."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.1f} {unit}"
    return f"{size_bytes} B"


def metric_name(name: str) -> str:
    """Return `hit_rate@10` as `Hit rate@10`."""
    kind, at, k = name.partition("@")
    return f"{_NAMES.get(kind, kind.replace('_', ' ').capitalize())}{at}{k}"


def metrics_table(judged: Sequence[Judged], protocol: Protocol, caption: str) -> Table:
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


def rates_table(rates: Mapping[str, float]) -> Table:
    """Metrics of a model alone."""
    return Table(
        caption="Seen candidates kept",
        columns=["Metric", "This model"],
        rows=[[Cell(text=metric_name(k)), Cell(text=f"{rate:.4f}")] for k, rate in rates.items()],
    )


def breadth_table(judged: Sequence[Judged], protocol: Protocol, ks: Sequence[int]) -> Table:
    """Coverage and popularity lift of the model and its baselines."""
    model = _of(judged)
    names = [
        f"{kind}@{k}" for kind in _BREADTH for k in ks if f"{kind}@{k}" in model.metrics[protocol]
    ]
    return Table(
        caption=f"Coverage and popularity lift, {protocol.replace('_', ' candidates ')}",
        columns=["Metric", *_heads(judged)],
        rows=[_row(judged, protocol, name, mark=False) for name in names],
    )


def activity_table(judged: Sequence[Judged], protocol: Protocol, ks: Sequence[int]) -> Table:
    """Hit rates by activity of the users; those of popularity below, if it was judged."""
    model = _of(judged)
    popular = next((row.evaluation for row in judged if row.name == "popularity"), None)
    excluded = protocol == "seen_excluded"
    rows = []
    for number, bucket in enumerate(model.activity):
        cells = [
            Cell(text=f"{bucket.fewest:,}–{bucket.most:,}"),
            Cell(text=f"{bucket.num_users:,}"),
            Cell(text=f"{bucket.num_held_out - excluded * bucket.num_repeats:,}"),
        ]
        theirs = {} if popular is None else popular.activity[number].metrics.get(protocol, {})
        for name in (f"{_HIT_RATE}{k}" for k in ks):
            rate = bucket.metrics.get(protocol, {}).get(name)
            cells.append(
                Cell(
                    text="–" if rate is None else f"{rate:.4f}",
                    more=f"popularity {theirs[name]:.4f}" if name in theirs else "",
                )
            )
        rows.append(cells)
    return Table(
        caption=f"Users by earlier interactions, {protocol.replace('_', ' ')}",
        columns=[
            "Interactions",
            "Users",
            "Held out",
            *(metric_name(f"{_HIT_RATE}{k}") for k in ks),
        ],
        rows=rows,
    )


def index_table(indexes: Sequence[IndexFacts]) -> Table:
    """Recall, latency and size of each servable."""
    return Table(
        caption="Published servables",
        columns=["Servable", f"Recall@{indexes[0].k}", "ms per query", "On disk"],
        rows=[
            [
                Cell(text=index.servable, more=_parameters(index.parameters)),
                Cell(text=f"{index.recall:.4f}", more=_target(index)),
                Cell(text=f"{index.latency_ms:.3g}", kind="timing"),
                Cell(text=size_in_words(index.size_bytes)),
            ]
            for index in indexes
        ],
    )


def _target(index: IndexFacts) -> str:
    if index.exact:
        return "exact"
    return "approximate" if index.target is None else f"target {index.target:g}"


def gate_table(gates: Mapping[str, Sequence[GateResult]]) -> Table:
    """Requirement of each gate, and its measurement of each servable."""
    by_gate: dict[str, dict[str, GateResult]] = {}
    for servable, of_servable in gates.items():
        for result in of_servable:
            by_gate.setdefault(result.gate, {})[servable] = result
    rows = []
    for gate, results in by_gate.items():
        required = dict.fromkeys(result.required for result in results.values())
        cells = [Cell(text=gate), Cell(text="; or ".join(required))]
        rows.append([*cells, *(_verdict(results.get(servable)) for servable in gates)])
    return Table(
        caption="Requirements and results",
        columns=["Gate", "Required", *gates],
        rows=rows,
        numeric=False,
    )


def _verdict(result: GateResult | None) -> Cell:
    if result is None:
        return Cell(text="–")
    kind = f"verdict {result.verdict} timing"
    return Cell(text=str(result.verdict), more=result.measured, kind=kind)


def configuration_tables(
    config: Mapping[str, Any], settings: Mapping[str, float], packages: Mapping[str, str]
) -> Iterator[Table]:
    """The whole configuration by section, chosen settings, and the versions of packages."""
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    if plain:
        sections = {"export": plain, **sections}
    for name, values in sections.items():
        if values:
            yield _settings(name, values)
    if settings:
        yield _settings("query tower, as trained", settings)
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
            return ", ".join(map(_setting, value))
        case _:
            return json.dumps(value, ensure_ascii=False)


def _parameters(parameters: Mapping[str, Any]) -> str:
    texts = [f"{key} {_setting(value)}" for key, value in parameters.items() if value is not None]
    return ", ".join(texts).replace("_", " ")


def _of(judged: Sequence[Judged]) -> Evaluation:
    model = judged[0].evaluation
    assert model is not None, "the model itself is always judged"
    return model


def _heads(judged: Sequence[Judged]) -> list[str]:
    return [row.name for row in judged]


def _row(
    judged: Sequence[Judged], protocol: Protocol, name: str, *, mark: bool = True
) -> list[Cell]:
    values = [
        None if column.evaluation is None else column.evaluation.metrics[protocol].get(name)
        for column in judged
    ]
    best = max((value for value in values if value is not None), default=None)
    cells = [Cell(text=metric_name(name))]
    for column, value in zip(judged, values, strict=True):
        if column.evaluation is None or value is None:
            cells.append(Cell(text="–"))
            continue
        interval = column.evaluation.intervals.get(protocol, {}).get(name)
        cells.append(
            Cell(
                text=f"{value:.4f}",
                more="" if interval is None else f"{interval.low:.4f} – {interval.high:.4f}",
                # Equal as printed is equally good.
                best=mark and len(judged) > 1 and f"{value:.4f}" == f"{best:.4f}",
            )
        )
    return cells
