"""`shortlist bench index`: recall, latency, memory and build time of the indexes."""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shortlist.clients.contract import INDEXES, servable_name
from shortlist.clients.errors import ShortlistError
from shortlist.export.bench.index_rows import BATCH, BATCHES, SINGLE, K, Row, as_table, with_ratios
from shortlist.export.bench.machine import machine
from shortlist.export.config import ROW_TYPES, IvfConfig
from shortlist.export.index.turns import time_in_turns

if TYPE_CHECKING:
    from shortlist.clients.protocol import RetrievalClient
    from shortlist.clients.types import Retrieval

__all__ = ["add_arguments", "run"]

MODEL: Final = "bench"
CHILD_TIMEOUT: Final = 3600.0  # seconds


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
    parser.add_argument(
        "--row-type",
        default=IvfConfig.row_type,
        choices=ROW_TYPES,
        help="what ivf scores rows in first (default: %(default)s)",
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
        ShortlistError: A measurement failed.
        ValueError: An option is out of range.
    """
    indexes = tuple(dict.fromkeys(args.index or INDEXES))
    sizes = tuple(dict.fromkeys(args.size or (10_000, 100_000)))
    recalls = tuple(sorted({*(args.recall or (0.9, 0.95))}))
    _check(args, sizes, recalls)
    curves: dict[str, Any] = {}
    if args.address is not None:
        rows = _through_server(args.address, indexes, args.queries)
    else:
        rows = []
        for size in sizes:
            measured, found = _in_process(args, size, indexes, recalls)
            rows += measured
            for index, curve in found.items():
                curves[f"{index} {_short(size)}" if len(sizes) > 1 else index] = curve
    if args.picture is not None and curves:
        _draw(args, sizes, curves)
    rows = with_ratios(rows)
    if args.json:
        text = json.dumps([asdict(row) for row in rows], indent=2)
    else:
        text = f"{_header(args, rows)}\n\n{as_table(rows)}"
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
    args: argparse.Namespace, size: int, indexes: Sequence[str], recalls: Sequence[float]
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of one size, and the curve of each index: built one by one, timed in turns."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shortlist-bench-")))
        folders, version = stack.enter_context(_folders(args.repository, indexes, scratch))
        common = {
            "size": size,
            "dimension": args.dimension,
            "vectors": args.vectors,
            "queries": args.queries,
            "threads": args.threads,
            "row_type": args.row_type,
            "exact": str(scratch / "exact.npy"),
        }
        built = {
            index: _build(index, recalls, path=str(path), version=version, **common)
            for index, path in folders.items()
        }
        measured = _child(
            f"{size} candidates: timed in turns",
            what="compare",
            servables={
                index: (str(path), sorted({*_timed_signatures(built[index]).values()}))
                for index, path in folders.items()
            },
            **common,
        )["measured"]
        loaded = {
            index: _child(
                f"{index}, {size} candidates: loaded by itself",
                what="load",
                threads=args.threads,
                path=str(path),
            )
            for index, path in folders.items()
        }
    rows = [
        row
        for index in indexes
        for row in _rows(index, size, built[index], measured[index], loaded[index])
    ]
    return rows, {index: built[index]["curve"] for index in indexes}


def _build(index: str, recalls: Sequence[float], **order: Any) -> dict[str, Any]:
    """Builds, tunes and saves an index; it must reach one of the recalls at least."""
    size = order["size"]
    step = f"{index}, {size} candidates: built, tuned and saved"
    built = _child(step, what="build", index=index, recalls=recalls, **order)
    if not built["targets"]:
        best = max(recall for _, recall in built["curve"])
        raise ShortlistError(
            f"{index} reaches recall@{K} {best:.3f} at most on {size} vectors; "
            "ask for less with --recall"
        )
    return built


def _timed_signatures(built: dict[str, Any]) -> dict[float, str]:
    """The signature that stands for each target: targets of the same effort share one."""
    first: dict[tuple[int | None, ...], str] = {}
    return {
        found["target"]: first.setdefault(tuple(found["effort"]), found["signature"])
        for found in built["targets"]
    }


def _rows(
    index: str,
    size: int,
    built: dict[str, Any],
    measured: dict[str, dict[str, float]],
    loaded: dict[str, Any],
) -> list[Row]:
    timed = _timed_signatures(built)
    rows = []
    for found in built["targets"]:
        measures = measured[timed[found["target"]]]
        rows.append(
            Row(
                size=size,
                index=index,
                target=found["target"],
                recall=measures["recall"],
                p50_ms=measures["p50_ms"],
                p99_ms=measures["p99_ms"],
                cpu_ms=measures["cpu_ms"],
                batch_ms=measures["batch_ms"],
                build_seconds=built["build_seconds"],
                size_bytes=loaded["size_bytes"],
                resident_bytes=loaded["resident_bytes"],
                effort="/".join(str(part) for part in found["effort"] if part is not None),
                parameters=found["parameters"],
            )
        )
    return rows


@contextmanager
def _folders(
    repository: Path | None, indexes: Sequence[str], scratch: Path
) -> Iterator[tuple[dict[str, Path], int]]:
    """A folder for each index and a version, to be kept in a repository or thrown away."""
    if repository is None:
        yield {index: scratch / index for index in indexes}, 1
        return
    from shortlist.serving.repository.local import ModelRepository

    names = {index: servable_name(MODEL, index) for index in indexes}
    with ModelRepository(repository).publisher([*names.values()]) as publisher:
        yield {index: publisher.stage(name) for index, name in names.items()}, publisher.version
        publisher.publish()


def _child(step: str, **order: Any) -> dict[str, Any]:
    """What a process of its own finds out; says on stderr when it is done."""
    began = time.monotonic()
    try:
        process = subprocess.run(
            [sys.executable, "-m", "shortlist.export.bench.measure"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ShortlistError(
            f"{step}: not within {CHILD_TIMEOUT:g} s; give a smaller --size"
        ) from exc
    if process.returncode == -signal.SIGKILL:
        raise ShortlistError(
            f"{step}: killed, as the system does where memory is short; "
            "measure fewer indexes at once with --index, or a smaller --size"
        )
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ShortlistError(f"{step}: failed ({process.returncode}): {last[0]}")
    result: dict[str, Any] = json.loads(process.stdout)
    peak = f"{result['peak_bytes'] / 1e6:,.0f} MB at most"
    sys.stderr.write(f"{step}, {time.monotonic() - began:.0f} s, {peak}\n")
    return result


def _through_server(address: str, indexes: Sequence[str], queries: int) -> list[Row]:
    """The same queries over gRPC; the server's own brute force says what is exact."""
    from shortlist.clients.grpc import GrpcClient

    users = [str(i) for i in range(queries)]
    with GrpcClient(address, timeout=60.0) as client:
        answers = _answers(client, users, servable_name(MODEL, "brute_force"))
        exact = [set(answer.candidate_ids) for answer in answers]
        recalls = {index: _recall(client, index, users, exact) for index in indexes}

        def call(index: str, batch: int) -> Callable[[int], object]:
            model = servable_name(MODEL, index)
            parts = [users[i : i + batch] for i in range(0, len(users) - batch + 1, batch)]
            return lambda i: client.retrieve(parts[i % len(parts)], k=K, model=model)

        single = time_in_turns({index: call(index, 1) for index in indexes}, SINGLE)
        batches = time_in_turns({index: call(index, BATCH) for index in indexes}, BATCHES)
    return [
        Row(
            size=None,
            index=index,
            target=None,
            recall=recalls[index],
            p50_ms=statistics.median(single[index].elapsed_ms),
            p99_ms=statistics.quantiles(single[index].elapsed_ms, n=100)[98],
            cpu_ms=None,
            batch_ms=statistics.median(batches[index].elapsed_ms) / BATCH,
        )
        for index in indexes
    ]


def _recall(
    client: "RetrievalClient", index: str, users: Sequence[str], exact: Sequence[set[str]]
) -> float:
    answers = _answers(client, users, servable_name(MODEL, index))
    return statistics.fmean(
        len(right.intersection(answer.candidate_ids)) / len(right)
        for answer, right in zip(answers, exact, strict=True)
    )


def _answers(client: "RetrievalClient", users: Sequence[str], model: str) -> list["Retrieval"]:
    """In batches: brute force scores the corpus for each user of a request."""
    return [
        answer
        for start in range(0, len(users), BATCH)
        for answer in client.retrieve(users[start : start + BATCH], k=K, model=model)
    ]


def _draw(args: argparse.Namespace, sizes: Sequence[int], curves: dict[str, Any]) -> None:
    from shortlist.export.report.figures import recall_picture

    size = ", ".join(map(_short, sizes))
    title = f"recall@{K}, one query: {size} x {args.dimension} {args.vectors} vectors"
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    args.picture.write_text(recall_picture(curves, title=title), encoding="utf-8")


def _header(args: argparse.Namespace, rows: Sequence[Row]) -> str:
    """What the table's figures were measured on and how."""
    if args.address is not None:
        return f"through {args.address}, in turns, client on: {machine()}"
    found = [(row.parameters or {}).get("row_type") for row in rows]
    row_types = {row_type for row_type in found if row_type is not None}
    kept = f"{' and '.join(sorted(row_types))} rows in ivf, " if row_types else ""
    return (
        f"{args.vectors} vectors, {args.dimension} dimensions, {kept}{args.threads} thread(s), "
        f"the indexes of a size timed in turns in one process, {machine()}"
    )


def _short(size: int) -> str:
    """A size such as 100k or 1M, where it is a round one."""
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size:,}"
