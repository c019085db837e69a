"""`shortlist bench export`: cost of publishing and serving a corpus, by its size."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from shortlist.clients.bench.process import run_python
from shortlist.clients.cli.output import progress, short_count, step, table, write, write_json
from shortlist.clients.contract import servable_name
from shortlist.export.bench.export_served import serve_and_measure
from shortlist.export.bench.machine import machine
from shortlist.export.bench.synthetic import sizes_of
from shortlist.export.preflight import chosen_indexes
from shortlist.export.report.charts import SLOTS, Axis, Series, line_chart, log_ticks, picture
from shortlist.serving.repository.files import temporary_folder
from shortlist.serving.repository.version import size_bytes

__all__ = ["ExportCost", "ServableCost", "cost_picture", "run"]

MODEL: Final = "bench"  # the name that `bench index --address` asks for
_MIB: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class ServableCost:
    """Cost of one servable of one size.

    Attributes:
        index: Kind of index.
        index_seconds: Time to build and tune the index.
        save_seconds: Time to save the servable with its extra files.
        peak_bytes: Largest resident size of the exporting process during these steps.
        disk_bytes: Size of the version's folder.
        graph_bytes: Size of the graph in it.
        load_seconds: Time from the start of an embedded server to AVAILABLE, warm-up included.
        served_bytes: Resident size of that server after some hundred requests.
        first_ms: Time of the first request.
        p50_ms: Median time of a request for one user over gRPC.
        p99_ms: 99th percentile of that time.
    """

    index: str
    index_seconds: float
    save_seconds: float
    peak_bytes: int
    disk_bytes: int
    graph_bytes: int
    load_seconds: float
    served_bytes: int
    first_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class ExportCost:
    """Cost of an export of one size: everything that `shortlist export` does after training.

    Attributes:
        size: Candidates.
        dimension: Length of a vector.
        vectors: Kind of vectors.
        seconds: Time of all steps.
        gates_seconds: Time of the gates, for all servables together.
        peak_bytes: Largest resident size of all its processes together.
        servables: One for each index.
    """

    size: int
    dimension: int
    vectors: str
    seconds: float
    gates_seconds: float
    peak_bytes: int
    servables: tuple[ServableCost, ...]


def run(args: argparse.Namespace) -> int:
    """Export, serve, measure and print.

    Raises:
        ShortlistError: An export failed.
        ValueError: An option is out of range.
    """
    sizes = sizes_of(args)
    if args.timeout < 1:
        raise ValueError(f"--timeout must be at least 1, got {args.timeout:g}")
    indexes = chosen_indexes(args.index)
    costs = [_cost(args, size, indexes) for size in sizes]
    if args.picture is not None:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        args.picture.write_text(cost_picture(costs), encoding="utf-8")
    if args.json:
        write_json(costs)
    else:
        write(_table(costs))
    return 0


def _cost(args: argparse.Namespace, size: int, indexes: Sequence[str]) -> ExportCost:
    progress(f"{size:,} candidates")
    with ExitStack() as stack:
        root = args.repository or stack.enter_context(temporary_folder("bench"))
        exported = _export(args, size, indexes, root)
        seconds, peaks = exported["seconds"], exported["peak_bytes"]
        servables = []
        for index in indexes:
            name = servable_name(MODEL, index)
            path = Path(exported["paths"][name])
            served = serve_and_measure(name, path, timeout=args.timeout)
            servables.append(
                ServableCost(
                    index=index,
                    index_seconds=seconds[f"index {index}"],
                    save_seconds=seconds[f"save {index}"],
                    peak_bytes=max(peaks[f"index {index}"], peaks[f"save {index}"]),
                    disk_bytes=size_bytes(path),
                    graph_bytes=(path / "saved_model.pb").stat().st_size,
                    **asdict(served),
                )
            )
            progress(step(f"served {name}", served.load_seconds))
    return ExportCost(
        size=size,
        dimension=args.dimension,
        vectors=args.vectors,
        seconds=sum(took for name, took in seconds.items() if name != "vectors"),
        gates_seconds=seconds["gates"],
        peak_bytes=max(peaks.values()),
        servables=tuple(servables),
    )


def _export(
    args: argparse.Namespace, size: int, indexes: Sequence[str], repository: Path
) -> dict[str, Any]:
    order = {
        "size": size,
        "dimension": args.dimension,
        "vectors": args.vectors,
        "indexes": indexes,
        "recall": args.recall,
        "row_type": args.row_type,
        "threads": args.threads,
        "timeout": args.timeout,
        "model": MODEL,
        "repository": str(repository),
    }
    output = run_python(
        *("-m", "shortlist.export.bench.export_child"),
        task=f"exporting {size} candidates",
        timeout=args.timeout,
        order=order,
        remedy="use a smaller --size, fewer indexes with --index, or a longer --timeout",
        show_progress=True,
    )
    result: dict[str, Any] = json.loads(output)
    return result


_COLUMNS: Final = (
    "candidates",
    "index",
    "index s",
    "save s",
    "gates s",
    "total s",
    "export MiB",
    "disk MiB",
    "graph KiB",
    "load s",
    "served MiB",
    "first ms",
    "p50 ms",
    "p99 ms",
)


def _table(costs: Sequence[ExportCost]) -> str:
    """One row for each servable and one for each export, as Markdown."""
    first = costs[0]
    rows: list[Sequence[str]] = [_COLUMNS]
    for cost in costs:
        for servable in cost.servables:
            rows.append(
                [
                    f"{cost.size:,}",
                    servable.index,
                    f"{servable.index_seconds:.1f}",
                    f"{servable.save_seconds:.1f}",
                    *("", ""),
                    _mib(servable.peak_bytes),
                    _mib(servable.disk_bytes),
                    f"{servable.graph_bytes / 1024:,.0f}",
                    f"{servable.load_seconds:.1f}",
                    _mib(servable.served_bytes),
                    f"{servable.first_ms:.1f}",
                    f"{servable.p50_ms:.2f}",
                    f"{servable.p99_ms:.2f}",
                ]
            )
        disk = sum(servable.disk_bytes for servable in cost.servables)
        times = (f"{cost.gates_seconds:.1f}", f"{cost.seconds:.1f}")
        sizes = (_mib(cost.peak_bytes), _mib(disk))
        rows.append([f"{cost.size:,}", "all", "", "", *times, *sizes, *[""] * 6])
    header = f"{first.vectors} vectors, {first.dimension} dimensions, {machine()}"
    return f"{header}\n\n{table(rows, text=(1,), markdown=True)}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f}"


_CHARTS: Final[Mapping[str, Callable[[ServableCost], float]]] = {
    "index, tune and save, seconds": lambda cost: cost.index_seconds + cost.save_seconds,
    "on disk, MiB": lambda cost: cost.disk_bytes / _MIB,
    "memory of the server, MiB": lambda cost: cost.served_bytes / _MIB,
    "one request over gRPC, p50 ms": lambda cost: cost.p50_ms,
}


def cost_picture(costs: Sequence[ExportCost]) -> str:
    """SVG file with export time, disk, memory of the server and latency of each index.

    Args:
        costs: Costs at one or more sizes, all with the same kind of vectors.
    """
    costs = sorted(costs, key=lambda cost: cost.size)
    first = costs[0]
    charts = {name: _chart(name, costs, measure) for name, measure in _CHARTS.items()}
    return picture(
        f"Cost by corpus size: {first.vectors} vectors of {first.dimension} dimensions",
        charts,
        [(slot % SLOTS, servable.index) for slot, servable in enumerate(first.servables)],
    )


def _chart(name: str, costs: Sequence[ExportCost], measure: Callable[[ServableCost], float]) -> str:
    series = [
        Series(
            name=servable.index,
            points=[(cost.size, max(measure(cost.servables[place]), 1e-3)) for cost in costs],
            slot=place % SLOTS,
        )
        for place, servable in enumerate(costs[0].servables)
    ]
    values = [value for line in series for _, value in line.points]
    return line_chart(
        series,
        x=Axis(
            label="candidates",
            ticks=log_ticks(costs[0].size, costs[-1].size),
            log=True,
            written=lambda size: short_count(round(size)),
        ),
        y=Axis(
            label=name,
            ticks=log_ticks(min(values), max(values)),
            log=True,
            written=lambda value: f"{float(f'{value:.3g}'):,g}",
        ),
        label=f"{name}, by number of candidates",
    )
