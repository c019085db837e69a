"""`shortlist bench export`: what publishing and serving a corpus costs, by its size."""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from shortlist.clients.contract import INDEXES, servable_name
from shortlist.clients.errors import ShortlistError
from shortlist.export.bench.machine import machine
from shortlist.export.config import ROW_TYPES, ExportConfig, IvfConfig

__all__ = ["ExportCost", "ServableCost", "add_arguments", "run"]

MODEL: Final = "bench"  # as `bench index` calls them, which can ask them through a server
_VECTORS: Final = ("towers", "mixture")
_MIB: Final = 2**20
_SEPARATE: Final = ("gates", "publish")  # steps of all servables together


@dataclass(frozen=True, kw_only=True)
class ServableCost:
    """What one servable of one size costs.

    Attributes:
        index: Kind of index.
        index_seconds: Building and tuning it.
        save_seconds: Saving it with all it carries.
        peak_bytes: Largest resident size of the exporting process meanwhile.
        disk_bytes: Of the version's folder.
        graph_bytes: Of the graph within it.
        load_seconds: From the start of an embedded server to AVAILABLE, warm-up included.
        served_bytes: Resident size of that server after some hundred requests.
        first_ms: Time of the first request.
        p50_ms: Median time of one request of one user over gRPC.
        p99_ms: 99th percentile of it.
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
    """What an export of one size costs, all that `shortlist export` does after training.

    Attributes:
        size: Candidates.
        dimension: Of the vectors.
        vectors: Kind of vectors.
        seconds: Of all steps.
        gates_seconds: Of the gates, for all servables together.
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `bench export`; imports nothing heavy."""
    parser.add_argument(
        "--size",
        type=int,
        action="append",
        metavar="N",
        help="candidates; give it once per size (default: 10000 and 100000)",
    )
    parser.add_argument(
        "--index", action="append", choices=INDEXES, help="index to export (default: all)"
    )
    parser.add_argument(
        "--recall",
        type=float,
        default=ExportConfig.recall,
        metavar="SHARE",
        help="recall@10 to tune to (default: %(default)s)",
    )
    parser.add_argument(
        "--vectors", default="towers", choices=_VECTORS, help="see bench index (default: towers)"
    )
    parser.add_argument(
        "--dimension", type=int, default=64, metavar="D", help="of a vector (default: %(default)s)"
    )
    parser.add_argument(
        "--row-type",
        default=IvfConfig.row_type,
        choices=ROW_TYPES,
        help="what ivf scores rows in first (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="T", help="threads of TensorFlow (default: all cores)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for one export (default: %(default)g)",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help=f"keep the servables there, as {MODEL}_<index>; one --size only",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the curves as SVG")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Exports, serves, measures and prints.

    Raises:
        ShortlistError: An export failed.
        ValueError: An option is out of range.
    """
    sizes = tuple(args.size or (10_000, 100_000))
    _check(args, sizes)
    costs = [_cost(args, size) for size in sizes]
    if args.picture is not None:
        from shortlist.export.bench.cost_picture import cost_picture

        args.picture.parent.mkdir(parents=True, exist_ok=True)
        args.picture.write_text(cost_picture(costs), encoding="utf-8")
    text = json.dumps([asdict(one) for one in costs], indent=2) if args.json else _table(costs)
    sys.stdout.write(f"{text}\n")
    return 0


def _check(args: argparse.Namespace, sizes: Sequence[int]) -> None:
    for name, value in (
        ("--size", min(sizes)),
        ("--dimension", args.dimension),
        ("--threads", 1 if args.threads is None else args.threads),
        ("--timeout", args.timeout),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if args.repository is not None and len(sizes) > 1:
        raise ValueError("--repository holds servables of one size; give --size once")


def _cost(args: argparse.Namespace, size: int) -> ExportCost:
    from shortlist.export.bench.serving_cost import serve_and_measure

    indexes = tuple(args.index or INDEXES)
    sys.stderr.write(f"{size:,} candidates\n")
    with ExitStack() as stack:
        root = args.repository
        if root is None:
            root = stack.enter_context(tempfile.TemporaryDirectory(prefix="shortlist-bench-"))
        exported = _export(args, size, indexes, Path(root))
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
                    disk_bytes=sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
                    graph_bytes=(path / "saved_model.pb").stat().st_size,
                    **asdict(served),
                )
            )
            sys.stderr.write(f"served {name:<20} {served.load_seconds:6.1f} s\n")
    return ExportCost(
        size=size,
        dimension=args.dimension,
        vectors=args.vectors,
        seconds=sum(took for step, took in seconds.items() if step != "vectors"),
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
    status, output, said = _child(order, timeout=args.timeout)
    if status is None:
        raise ShortlistError(
            f"exporting {size} candidates took more than {args.timeout:g} s; "
            "give it longer with --timeout"
        )
    if status != 0:
        raise ShortlistError(f"exporting {size} candidates failed ({status}): {said}")
    result: dict[str, Any] = json.loads(output)
    return result


def _child(order: dict[str, Any], *, timeout: float) -> tuple[int | None, str, str]:
    """Runs an export, its steps shown as they end.

    Returns:
        Exit status, None where it took too long; what it wrote; its last line on stderr.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "shortlist.export.bench.exporting"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    late = threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout, give_up)
    timer.start()
    said, output = "no message", ""
    with process:
        try:
            with suppress(BrokenPipeError):  # it has ended already, and said why
                process.stdin.write(json.dumps(order))
                process.stdin.close()
            for line in process.stderr:
                sys.stderr.write(line)
                said = line.strip() or said
            output = process.stdout.read()
        except BaseException:  # a Ctrl-C that only this process got
            process.kill()
            raise
        finally:
            timer.cancel()
    return None if late.is_set() else process.returncode, output, said


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
    lines = [
        f"{first.vectors} vectors, {first.dimension} dimensions, {machine()}",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"| ---: | --- |{' ---: |' * (len(_COLUMNS) - 2)}",
    ]
    for cost in costs:
        for one in cost.servables:
            cells = [
                f"{cost.size:,}",
                one.index,
                f"{one.index_seconds:.1f}",
                f"{one.save_seconds:.1f}",
                "",
                "",
                f"{one.peak_bytes / _MIB:,.0f}",
                f"{one.disk_bytes / _MIB:,.0f}",
                f"{one.graph_bytes / 1024:,.0f}",
                f"{one.load_seconds:.1f}",
                f"{one.served_bytes / _MIB:,.0f}",
                f"{one.first_ms:.1f}",
                f"{one.p50_ms:.2f}",
                f"{one.p99_ms:.2f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        disk = sum(one.disk_bytes for one in cost.servables)
        cells = [
            *(f"{cost.size:,}", "all", "", "", f"{cost.gates_seconds:.1f}", f"{cost.seconds:.1f}"),
            *(f"{cost.peak_bytes / _MIB:,.0f}", f"{disk / _MIB:,.0f}", "", "", "", "", "", ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
