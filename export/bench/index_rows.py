"""Rows of `shortlist bench index`, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from shortlist.clients.cli.output import megabytes, number, table
from shortlist.export.index.turns import Turns

__all__ = ["BATCH", "BATCHES", "SINGLE", "K", "Row", "as_table", "with_ratios"]

K: Final = 10
BATCH: Final = 64
# Brute force takes 30 to 40 ms per query at a million candidates: `seconds` ends it early.
SINGLE: Final = Turns(count=300, block=20, untimed=3, seconds=6.0, least=10)
BATCHES: Final = Turns(count=24, block=3, untimed=1, seconds=6.0, least=4)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One index at one size, tuned to one recall.

    Attributes:
        size: Candidates; `None` through a server.
        index: Kind of index.
        target: Recall@10 it was tuned to; `None` through a server.
        recall: Recall@10 of the saved servable.
        p50_ms: Median time of one query.
        of_scann: `p50_ms` relative to ScaNN's, tuned to the same recall and timed in turns;
            `None` if ScaNN was not measured.
        brute_force_times: Brute force's `p50_ms` relative to this one's; `None` if not measured.
        p99_ms: 99th percentile of the time of one query.
        cpu_ms: Median CPU time of one query; `None` through a server.
        batch_ms: Median time per query in a batch of 64.
        batch_of_scann: `batch_ms` relative to ScaNN's.
        build_seconds: Time to build the index.
        size_bytes: Size of the SavedModel.
        resident_bytes: Memory added to a fresh process by loading and using it.
        effort: Leaves to search and reordering candidates.
        parameters: All parameters of the index; `None` through a server.
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
    "× scann",
    "speed-up",  # over brute force
    "p99 ms",
    "CPU ms",
    f"batch of {BATCH}, ms/query",
    "× scann",
    "build s",
    "disk MB",
    "memory MB",
)


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with ratios to ScaNN and brute force of the same size and target."""
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
    """Return the rows as a Markdown table, without empty columns."""
    lines = [_COLUMNS, *map(_cells, rows)]
    filled = [i for i in range(len(_COLUMNS)) if any(line[i] for line in lines[1:])]
    text = [place for place, i in enumerate(filled) if _COLUMNS[i] in ("index", "effort")]
    return table([[line[i] for i in filled] for line in lines], text=text, markdown=True)


def _cells(row: Row) -> list[str]:
    return [
        number(row.size, ",", unknown=""),
        row.index,
        number(row.target, unknown=""),
        f"{row.recall:.3f}",
        row.effort,
        f"{row.p50_ms:.2f}",
        number(row.of_scann, ".2f", unknown=""),
        number(row.brute_force_times, ".1f", unknown=""),
        f"{row.p99_ms:.2f}",
        number(row.cpu_ms, ".2f", unknown=""),
        f"{row.batch_ms:.3f}",
        number(row.batch_of_scann, ".2f", unknown=""),
        number(row.build_seconds, ".1f", unknown=""),
        megabytes(row.size_bytes, ".0f", unknown=""),
        megabytes(row.resident_bytes, ".0f", unknown=""),
    ]
