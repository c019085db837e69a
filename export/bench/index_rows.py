"""The rows of `shortlist bench index`: how indexes compare, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from shortlist.export.index.turns import Turns

__all__ = ["BATCH", "BATCHES", "SINGLE", "K", "Row", "as_table", "with_ratios"]

K: Final = 10
BATCH: Final = 64
# Brute force takes 30 to 40 ms for a query at a million candidates; its number is cut.
SINGLE: Final = Turns(count=300, block=20, untimed=3, seconds=6.0, least=10)
BATCHES: Final = Turns(count=24, block=3, untimed=1, seconds=6.0, least=4)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: one index at one size, tuned to one recall.

    Attributes:
        size: Candidates; None through a server.
        index: Kind of index.
        target: Recall@10 it was tuned to; None through a server.
        recall: Recall@10 that the saved servable has.
        p50_ms: Median time of one query.
        of_scann: That time over ScaNN's, tuned to the same recall and timed in turns with it;
            None where ScaNN was not.
        brute_force_times: Brute force's time of one query over this one's; None without it.
        p99_ms: 99th percentile of the time of one query.
        cpu_ms: Median CPU time of one query; None through a server.
        batch_ms: Time per query in a batch of 64, median.
        batch_of_scann: As `of_scann`, of the time in a batch.
        build_seconds: Building the index.
        size_bytes: Of the SavedModel.
        resident_bytes: Added to a fresh process by loading and using it.
        effort: Leaves to search and reordering candidates.
        parameters: All parameters of the index; None through a server.
    """

    size: int | None
    index: str
    target: float | None
    recall: float
    p50_ms: float
    of_scann: float | None = None
    brute_force_times: float | None = None
    p99_ms: float
    cpu_ms: float | None
    batch_ms: float
    batch_of_scann: float | None = None
    build_seconds: float | None = None
    size_bytes: int | None = None
    resident_bytes: int | None = None
    effort: str = ""
    parameters: dict[str, Any] | None = None


_COLUMNS = (
    "candidates",
    "index",
    "target",
    f"recall@{K}",
    "effort",
    "p50 ms",
    "of scann",
    "brute force ×",
    "p99 ms",
    "CPU ms",
    f"batch of {BATCH}, ms/query",
    "of scann",
    "build s",
    "disk MB",
    "memory MB",
)


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The same rows, and how each compares with ScaNN and brute force where they were measured.

    Args:
        rows: Timed in turns as far as their sizes are the same.
    """
    others = {(row.index, row.size, row.target): row for row in rows}
    compared = []
    for row in rows:
        scann = others.get(("scann", row.size, row.target))
        brute_force = others.get(("brute_force", row.size, row.target))
        if scann is not None:
            row = replace(
                row,
                of_scann=row.p50_ms / scann.p50_ms,
                batch_of_scann=row.batch_ms / scann.batch_ms,
            )
        if brute_force is not None:
            row = replace(row, brute_force_times=brute_force.p50_ms / row.p50_ms)
        compared.append(row)
    return compared


def as_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, without columns that nothing is known of."""
    table = [_cells(row) for row in rows]
    known = [i for i in range(len(_COLUMNS)) if any(cells[i] for cells in table)]
    lines = [[_COLUMNS[i] for i in known]]
    lines.append(["---" if _COLUMNS[i] in ("index", "effort") else "---:" for i in known])
    lines += [[cells[i] for i in known] for cells in table]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> list[str]:
    return [
        _number(row.size, ","),
        row.index,
        _number(row.target, "g"),
        f"{row.recall:.3f}",
        row.effort,
        f"{row.p50_ms:.2f}",
        _number(row.of_scann, ".2f"),
        _number(row.brute_force_times, ".1f"),
        f"{row.p99_ms:.2f}",
        _number(row.cpu_ms, ".2f"),
        f"{row.batch_ms:.3f}",
        _number(row.batch_of_scann, ".2f"),
        _number(row.build_seconds, ".1f"),
        _number(None if row.size_bytes is None else row.size_bytes / 1e6, ".0f"),
        _number(None if row.resident_bytes is None else row.resident_bytes / 1e6, ".0f"),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
