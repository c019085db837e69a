"""Lines on metrics and gates that several verbs print."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from shortlist.clients.cli.output import notice, table
from shortlist.export.config import PROTOCOLS, Protocol
from shortlist.export.evaluation.held_out import HeldOut
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.version import GateResult, Headline, Verdict
from shortlist.serving.rollout.versions import live_at_once

__all__ = [
    "extra_metrics",
    "gate_lines",
    "headline_lines",
    "metrics_table",
    "notable_gates",
    "notice_if_live",
    "protocols_of",
]


def metrics_table(title: str, metrics: Mapping[str, Any], names: Iterable[str], form: str) -> str:
    """Return metrics by protocol as a table, the protocol of the headline first.

    Args:
        title: Heading of the metrics' names.
        metrics: Metrics, as in a manifest.
        names: Names of the metrics to show.
        form: Format of a number.
    """
    protocols = protocols_of(metrics)
    rows = [
        [name, *(format(metrics[protocol][name], form) for protocol in protocols)] for name in names
    ]
    return table([[title, *(protocol.replace("_", " ") for protocol in protocols)], *rows])


def protocols_of(metrics: Mapping[str, Any]) -> list[str]:
    """Return the protocols that were measured, that of the headline first."""
    first = metrics["headline"]["protocol"]
    return sorted((p for p in PROTOCOLS if p in metrics), key=lambda p: p != first)


def headline_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return the headline with its interval, how much it counts, and advice on the protocol."""
    headline = Headline(**metrics["headline"])
    held_out = HeldOut(**metrics["held_out"])
    interval = "" if headline.interval is None else " [{:.4f}, {:.4f}]".format(*headline.interval)
    lines = [f"{headline}{interval}", str(held_out)]
    advice = held_out.advice(cast(Protocol, headline.protocol))
    return lines if advice is None else [*lines, advice]


def extra_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """Return lines on predicted ratings and similar candidates, as far as they were measured."""
    lines = []
    if "rating" in metrics:
        rating = metrics["rating"]
        lines.append(
            f"rating RMSE {rating['rmse']:.4f} (means per user and candidate: "
            f"{rating['baseline_rmse']:.4f})"
        )
    if "similar" in metrics:
        similar = metrics["similar"]
        lines.append(
            f"similar hit_rate@10 (seen kept) {similar['hit_rate']:.4f} (by towers: "
            f"{similar['towers_hit_rate']:.4f})"
        )
    return lines


def gate_lines(results: Mapping[str, Sequence[GateResult]]) -> str:
    """Return one line for each gate of each servable."""
    return "\n".join(f"{name}: {result}" for name, gates in results.items() for result in gates)


def notable_gates(results: Mapping[str, Sequence[GateResult]]) -> list[str]:
    """Return a line for `quality` and each gate that did not pass, with the servables."""
    servables: dict[str, list[str]] = {}
    for name, gates in results.items():
        for gate in gates:
            if gate.verdict != Verdict.PASSED or gate.gate == "quality":
                line = f"gate {gate.gate} {gate.verdict}: {gate.measured}"
                servables.setdefault(line, []).append(name)
    return [
        f"  {line}" if len(names) == len(results) else f"  {line} ({', '.join(names)})"
        for line, names in servables.items()
    ]


def notice_if_live(repository: Path, names: Iterable[str], version: int) -> None:
    """Write a line to stderr if servers load a published version without a rollout."""
    line = live_at_once(ModelRepository(repository), names, version)
    if line is not None:
        notice(line)
