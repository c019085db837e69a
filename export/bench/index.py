"""`shortlist bench index`: recall, latency, memory and build time of the indexes."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shortlist.clients.bench.process import run_python
from shortlist.clients.cli.output import megabytes, progress, short_count, write, write_json
from shortlist.clients.contract import INDEXES, servable_name
from shortlist.clients.errors import ShortlistError
from shortlist.export.bench.index_rows import BATCH, BATCHES, SINGLE, K, Row, as_table, with_ratios
from shortlist.export.bench.machine import machine
from shortlist.export.bench.synthetic import sizes_of
from shortlist.export.index.turns import time_in_turns
from shortlist.export.preflight import chosen_indexes
from shortlist.export.report.figures import recall_picture
from shortlist.serving.repository.files import temporary_folder

if TYPE_CHECKING:
    from shortlist.clients import RetrievalClient
    from shortlist.clients.types import Retrieval

__all__ = ["run"]

MODEL: Final = "bench"
_TIMEOUT: Final = 3600.0  # seconds


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ShortlistError: A measurement failed.
        ValueError: An option is out of range.
    """
    sizes = sizes_of(args)
    recalls = tuple(sorted({*(args.recall or (0.9, 0.95))}))
    _check(args, recalls)
    curves: dict[str, Any] = {}
    if args.address is not None:
        rows = _through_server(args.address, args.index or INDEXES, args.queries)
    else:
        indexes = chosen_indexes(args.index)
        rows = []
        for size in sizes:
            of_size, curves_of_size = _in_process(args, size, indexes, recalls)
            rows += of_size
            for index, curve in curves_of_size.items():
                curves[f"{index} {short_count(size)}" if len(sizes) > 1 else index] = curve
    if args.picture is not None and curves:
        _draw(args, sizes, curves)
    rows = with_ratios(rows)
    if args.json:
        write_json(rows)
    else:
        write(f"{_header(args, rows)}\n\n{as_table(rows)}")
    return 0


def _check(args: argparse.Namespace, recalls: Sequence[float]) -> None:
    if args.queries < BATCH:
        raise ValueError(f"--queries must be at least {BATCH}, got {args.queries}")
    if not all(0 < recall <= 1 for recall in recalls):
        raise ValueError(f"--recall must lie between 0 and 1, got {', '.join(map(str, recalls))}")


def _in_process(
    args: argparse.Namespace, size: int, indexes: Sequence[str], recalls: Sequence[float]
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of one size and the curve of each index: built one by one, timed in turns."""
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder("bench"))
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
    """Build, tune and save an index, which must reach at least one of the recalls."""
    size = order["size"]
    step = f"{index}, {size} candidates: built, tuned and saved"
    built = _child(step, what="build", index=index, recalls=recalls, **order)
    if not built["targets"]:
        best = max(recall for _, recall in built["curve"])
        raise ShortlistError(
            f"{index} reaches at most recall@{K} {best:.3f} on {size} vectors; "
            "choose a lower --recall"
        )
    return built


def _timed_signatures(built: dict[str, Any]) -> dict[float, str]:
    """Signature to time for each target; targets of the same effort share one."""
    first: dict[tuple[int | None, ...], str] = {}
    return {
        target["target"]: first.setdefault(tuple(target["effort"]), target["signature"])
        for target in built["targets"]
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
    for target in built["targets"]:
        measures = measured[timed[target["target"]]]
        rows.append(
            Row(
                size=size,
                index=index,
                target=target["target"],
                recall=measures["recall"],
                p50_ms=measures["p50_ms"],
                p99_ms=measures["p99_ms"],
                cpu_ms=measures["cpu_ms"],
                batch_ms=measures["batch_ms"],
                build_seconds=built["build_seconds"],
                size_bytes=loaded["size_bytes"],
                resident_bytes=loaded["resident_bytes"],
                effort="/".join(str(part) for part in target["effort"] if part is not None),
                parameters=target["parameters"],
            )
        )
    return rows


@contextmanager
def _folders(
    repository: Path | None, indexes: Sequence[str], scratch: Path
) -> Iterator[tuple[dict[str, Path], int]]:
    """A folder for each index and a version, kept in a repository or deleted."""
    if repository is None:
        yield {index: scratch / index for index in indexes}, 1
        return
    from shortlist.serving.repository.local import ModelRepository

    names = {index: servable_name(MODEL, index) for index in indexes}
    with ModelRepository(repository).publisher([*names.values()]) as publisher:
        yield {index: publisher.stage(name) for index, name in names.items()}, publisher.version
        publisher.publish()


def _child(step: str, **order: Any) -> dict[str, Any]:
    """Run a measurement in a process of its own and report it on stderr."""
    started = time.monotonic()
    output = run_python(
        *("-m", "shortlist.export.bench.index_child"),
        task=step,
        timeout=_TIMEOUT,
        order=order,
        remedy="use a smaller --size, or fewer indexes at once with --index",
    )
    result: dict[str, Any] = json.loads(output)
    peak = megabytes(result["peak_bytes"], ",.0f")
    progress(f"{step}, {time.monotonic() - started:.0f} s, at most {peak} MB")
    return result


def _through_server(address: str, indexes: Sequence[str], queries: int) -> list[Row]:
    """Measure a running server over gRPC; its own brute force gives the exact answers."""
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
        len(best.intersection(answer.candidate_ids)) / len(best)
        for answer, best in zip(answers, exact, strict=True)
    )


def _answers(client: "RetrievalClient", users: Sequence[str], model: str) -> list["Retrieval"]:
    """Ask in batches: brute force scores the corpus for each user of a request."""
    return [
        answer
        for start in range(0, len(users), BATCH)
        for answer in client.retrieve(users[start : start + BATCH], k=K, model=model)
    ]


def _draw(args: argparse.Namespace, sizes: Sequence[int], curves: dict[str, Any]) -> None:
    size = ", ".join(map(short_count, sizes))
    title = f"recall@{K}, one query: {size} x {args.dimension} {args.vectors} vectors"
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    args.picture.write_text(recall_picture(curves, title=title), encoding="utf-8")


def _header(args: argparse.Namespace, rows: Sequence[Row]) -> str:
    """Data, method and machine, above the table."""
    if args.address is not None:
        return f"through {args.address}, in turns, client on: {machine()}"
    row_types = {(row.parameters or {}).get("row_type") for row in rows} - {None}
    ivf_rows = f"{' and '.join(sorted(map(str, row_types)))} rows in ivf, " if row_types else ""
    return (
        f"{args.vectors} vectors, {args.dimension} dimensions, {ivf_rows}{args.threads} thread(s), "
        f"the indexes of a size timed in turns in one process, {machine()}"
    )
