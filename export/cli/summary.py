"""Lines on metrics and gates that several verbs print."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shortlist.clients.cli.output import table

if TYPE_CHECKING:
    from shortlist.serving.repository.version import GateResult

__all__ = ["extra_metrics", "gate_lines", "metrics_table"]


def metrics_table(title: str, names: Iterable[str], cell: Callable[[str, str], str]) -> str:
    """Return metrics by protocol as a table.

    Args:
        title: Heading of the metrics' names.
        names: Metrics.
        cell: Text for a protocol and a metric.
    """
    protocols = ("seen_kept", "seen_excluded")
    heads = [protocol.replace("_", " ") for protocol in protocols]
    rows = [[name, *(cell(protocol, name) for protocol in protocols)] for name in names]
    return table([[title, *heads], *rows])


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
            f"similar hit_rate@10 {similar['hit_rate']:.4f} (by towers: "
            f"{similar['towers_hit_rate']:.4f})"
        )
    return lines


def gate_lines(results: "Mapping[str, Sequence[GateResult]]") -> str:
    """Return one line for each gate of each servable."""
    return "\n".join(f"{name}: {result}" for name, gates in results.items() for result in gates)
