"""`shortlist bench index`: recall, latency, memory and build time of the indexes."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clients.contract import INDEXES, servable_name
from clients.failures import CommandError
from export.bench.machine import machine

if TYPE_CHECKING:
    from clients.protocol import RetrievalClient
    from clients.types import Retrieval

__all__ = ["Row", "add_arguments", "run"]

MODEL: Final = "bench"
K: Final = 10
BATCH: Final = 64
_BATCHES: Final = 10
CHILD_TIMEOUT: Final = 3600.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: one index at one size, tuned to one recall.

    Attributes:
        size: Candidates; None through a server.
        index: Kind of index.
        target: Recall@10 it was tuned to; None through a server.
        recall: Recall@10 it has.
        p50_ms: Median time of one query.
        p99_ms: 99th percentile of it.
        cpu_ms: Median CPU time of one query; None through a server.
        batch_ms: Time per query in a batch of 64, median.
        build_seconds: Building the index.
        size_bytes: Of the SavedModel.
        resident_bytes: Added to a fresh process by loading and using it.
        effort: Leaves to search and reordering candidates.
    """

    size: int | None
    index: str
    target: float | None
    recall: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float | None
    batch_ms: float
    build_seconds: float | None = None
    size_bytes: int | None = None
    resident_bytes: int | None = None
    effort: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `bench index`; imports nothing heavy."""
    parser.add_argument(
        "--size",
        type=int,
        action="append",
        metavar="N",
        help="candidates; give it once per size (default: 10000 and 100000)",
    )
    parser.add_argument(
        "--index", action="append", choices=INDEXES, help="index to measure (default: all)"
    )
    parser.add_argument(
        "--recall",
        type=float,
        action="append",
        metavar="SHARE",
        help="recall@10 to tune to; give it once per target (default: 0.9 and 0.95)",
    )
    parser.add_argument(
        "--vectors",
        default="towers",
        choices=("towers", "mixture"),
        help="unit vectors with a decaying spectrum, or isotropic clusters (default: %(default)s)",
    )
    for option, default, text in (
        ("--dimension", 64, "length of a vector"),
        ("--queries", 300, "queries to measure with"),
        ("--threads", 1, "threads of TensorFlow"),
    ):
        parser.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write the curves as SVG")
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help=f"keep the servables there, as {MODEL}_<index>, for a server to run; one --size only",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="measure the servables of --repository through this server's gRPC port instead",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures and prints.

    Raises:
        CommandError: A measurement failed.
        ValueError: An option is out of range.
    """
    indexes = tuple(args.index or INDEXES)
    sizes = tuple(args.size or (10_000, 100_000))
    recalls = tuple(sorted(args.recall or (0.9, 0.95)))
    _check(args, sizes, recalls)
    curves: dict[str, Any] = {}
    if args.address is not None:
        rows = _through_server(args.address, indexes, args.queries)
    else:
        rows = []
        for size in sizes:
            for index in indexes:
                measured, curve = _in_process(args, size, index, recalls)
                rows += measured
                curves[f"{index} {_short(size)}" if len(sizes) > 1 else index] = curve
    if args.picture is not None and curves:
        _draw(args, sizes, curves)
    text = json.dumps([asdict(row) for row in rows], indent=2) if args.json else _table(args, rows)
    sys.stdout.write(f"{text}\n")
    return 0


def _check(args: argparse.Namespace, sizes: Sequence[int], recalls: Sequence[float]) -> None:
    for name, values in (
        ("--size", sizes),
        ("--dimension", [args.dimension]),
        ("--threads", [args.threads]),
    ):
        if min(values) < 1:
            raise ValueError(f"{name} must be positive, got {min(values)}")
    if args.queries < BATCH:
        raise ValueError(f"--queries must be at least {BATCH}, got {args.queries}")
    if not all(0 < recall <= 1 for recall in recalls):
        raise ValueError(f"--recall must lie between 0 and 1, got {', '.join(map(str, recalls))}")
    if args.repository is not None and len(sizes) > 1:
        raise ValueError("--repository holds servables of one size; give --size once")


def _in_process(
    args: argparse.Namespace, size: int, index: str, recalls: Sequence[float]
) -> tuple[list[Row], list[tuple[float, float]]]:
    """Rows and curve of one index, measured in processes of their own."""
    began = time.monotonic()
    with _servable_folder(args.repository, index) as (path, version):
        built = _child(
            {
                "what": "build",
                "index": index,
                "size": size,
                "dimension": args.dimension,
                "vectors": args.vectors,
                "queries": args.queries,
                "recalls": recalls,
                "threads": args.threads,
                "path": str(path),
                "version": version,
            }
        )
        if not built["targets"]:
            best = max(recall for _, recall in built["curve"])
            raise CommandError(
                f"{index} reaches recall@{K} {best:.3f} at most on {size} vectors; "
                "ask for less with --recall"
            )
        loaded = _child({"what": "load", "threads": args.threads, "path": str(path)})
    sys.stderr.write(f"{index}, {size} candidates: {time.monotonic() - began:.0f} s\n")
    rows = [
        Row(
            size=size,
            index=index,
            target=found["target"],
            recall=found["recall"],
            p50_ms=found["p50_ms"],
            p99_ms=found["p99_ms"],
            cpu_ms=found["cpu_ms"],
            batch_ms=found["batch_ms"],
            build_seconds=built["build_seconds"],
            size_bytes=loaded["size_bytes"],
            resident_bytes=loaded["resident_bytes"],
            effort="/".join(
                str(found[name])
                for name in ("num_leaves_to_search", "num_reordering_candidates")
                if found[name] is not None
            ),
        )
        for found in built["targets"]
    ]
    return rows, [(latency, recall) for latency, recall in built["curve"]]


@contextmanager
def _servable_folder(repository: Path | None, index: str) -> Iterator[tuple[Path, int]]:
    """Folder and number of a version, to be kept in a repository or thrown away."""
    if repository is None:
        with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as folder:
            yield Path(folder), 1
        return
    from serving.repository import ModelRepository

    name = servable_name(MODEL, index)
    with ModelRepository(repository).publisher([name]) as publisher:
        staged = publisher.stage(name)
        yield staged, publisher.version
        publisher.publish()


def _child(order: dict[str, Any]) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-m", "export.bench.measure"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=CHILD_TIMEOUT,
        check=False,
    )
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1:] or ["no message"]
        raise CommandError(
            f"measuring {order.get('index', 'memory')} failed ({process.returncode}): {last[0]}"
        )
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def _through_server(address: str, indexes: Sequence[str], queries: int) -> list[Row]:
    """The same queries over gRPC; the server's own brute force says what is exact."""
    from clients.grpc import GrpcClient

    users = [str(i) for i in range(queries)]
    with GrpcClient(address, timeout=60.0) as client:
        answers = _answers(client, users, servable_name(MODEL, "brute_force"))
        exact = [set(answer.candidate_ids) for answer in answers]
        return [_through_client(client, index, users, exact) for index in indexes]


def _through_client(
    client: "RetrievalClient", index: str, users: Sequence[str], exact: Sequence[set[str]]
) -> Row:
    model = servable_name(MODEL, index)
    answers = _answers(client, users, model)
    hits = [
        len(right.intersection(answer.candidate_ids)) / len(right)
        for answer, right in zip(answers, exact, strict=True)
    ]
    single, batches = [], []
    for user in users:
        start = time.perf_counter()
        client.retrieve([user], k=K, model=model)
        single.append((time.perf_counter() - start) * 1e3)
    for _ in range(_BATCHES):
        start = time.perf_counter()
        client.retrieve(users[:BATCH], k=K, model=model)
        batches.append((time.perf_counter() - start) * 1e3 / BATCH)
    return Row(
        size=None,
        index=index,
        target=None,
        recall=statistics.fmean(hits),
        p50_ms=statistics.median(single),
        p99_ms=statistics.quantiles(single, n=100)[98],
        cpu_ms=None,
        batch_ms=statistics.median(batches),
    )


def _answers(client: "RetrievalClient", users: Sequence[str], model: str) -> list["Retrieval"]:
    """In batches: brute force scores the corpus for each user of a request."""
    return [
        answer
        for start in range(0, len(users), BATCH)
        for answer in client.retrieve(users[start : start + BATCH], k=K, model=model)
    ]


def _draw(args: argparse.Namespace, sizes: Sequence[int], curves: dict[str, Any]) -> None:
    from export.plot import recall_latency_svg

    size = ", ".join(map(_short, sizes))
    title = f"recall@{K}, one query: {size} x {args.dimension} {args.vectors} vectors"
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    args.picture.write_text(recall_latency_svg(curves, title=title), encoding="utf-8")


_COLUMNS = (
    "candidates",
    "index",
    "target",
    f"recall@{K}",
    "effort",
    "p50 ms",
    "p99 ms",
    "CPU ms",
    f"batch of {BATCH}, ms/query",
    "build s",
    "disk MB",
    "memory MB",
)


def _table(args: argparse.Namespace, rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, under what they were measured on."""
    what = f"through {args.address}, client on: {machine()}"
    if args.address is None:
        what = f"{args.vectors} vectors, {args.dimension} dimensions, {args.threads} thread(s), "
        what += machine()
    table = []
    for row in rows:
        table.append(
            [
                _number(row.size, ","),
                row.index,
                _number(row.target, "g"),
                f"{row.recall:.3f}",
                row.effort,
                f"{row.p50_ms:.2f}",
                f"{row.p99_ms:.2f}",
                _number(row.cpu_ms, ".2f"),
                f"{row.batch_ms:.3f}",
                _number(row.build_seconds, ".1f"),
                _number(None if row.size_bytes is None else row.size_bytes / 1e6, ".0f"),
                _number(None if row.resident_bytes is None else row.resident_bytes / 1e6, ".0f"),
            ]
        )
    # Through a server nothing is known of how the servables were built.
    known = [i for i in range(len(_COLUMNS)) if any(cells[i] for cells in table)]
    lines = [[_COLUMNS[i] for i in known]]
    lines.append(["---" if _COLUMNS[i] in ("index", "effort") else "---:" for i in known])
    lines += [[cells[i] for i in known] for cells in table]
    return "\n".join([what, "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def _short(size: int) -> str:
    """A size such as 100k or 1M, where it is a round one."""
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size:,}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
