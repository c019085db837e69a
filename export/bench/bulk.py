"""`shortlist bench bulk`: lists in bulk compared with runs of the signature alone."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from shortlist.clients.bench.process import run_python
from shortlist.clients.cli.output import progress, table, write, write_json
from shortlist.clients.cli.progress import tracked
from shortlist.clients.local import RetrievalOptions
from shortlist.export.bench.machine import machine
from shortlist.export.bulk.engine import USERS, BulkServable
from shortlist.export.bulk.output import open_output
from shortlist.export.bulk.run import BATCH_ROWS, run_bulk
from shortlist.export.config import IvfConfig
from shortlist.export.preflight import chosen_indexes
from shortlist.serving.repository.files import temporary_folder

__all__ = ["run"]

_ROUNDS: Final = 5  # in turns, so that both meet the same machine
_TIMEOUT: Final = 3600.0  # seconds, of a build


@dataclass(frozen=True, kw_only=True)
class Row:
    """One index.

    Attributes:
        candidates: Size of the corpus.
        index: Kind of index.
        signature: Users per second of the signature alone, in its fastest round.
        bulk: Users per second from ids to Parquet files, in the fastest round.
        share: `bulk` relative to `signature`.
        signature_cpu_us: CPU time per user of the signature alone, median of the rounds.
        cpu_us: CPU time per user in bulk, median of the rounds.
        file_bytes: Bytes per user in the files.
    """

    candidates: int
    index: str
    signature: float
    bulk: float
    share: float
    signature_cpu_us: float
    cpu_us: float
    file_bytes: float


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ShortlistError: A measurement failed.
        ValueError: An option is out of range.
    """
    for option in ("size", "users", "k"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    rows = []
    for index in tracked(chosen_indexes(args.index), "bulk"):
        with temporary_folder("bench") as folder:
            path = folder / f"bench_{index}" / "1"
            _build(index, path, args.size)
            rows.append(_measure(index, path, folder, args))
            progress(f"{index}: {rows[-1].share:.0%} of the signature's speed")
    if args.json:
        write_json(rows)
        return 0
    write(
        f"k={args.k}, {args.users:,} users, batches of {BATCH_ROWS}, synthetic vectors of 64 "
        f"dimensions, {machine()}\n\n{_table(rows)}"
    )
    return 0


def _build(index: str, path: Path, size: int) -> None:
    """Save a servable that knows as many users as a batch has."""
    order: dict[str, Any] = {
        "what": "build",
        "index": index,
        "recalls": [0.95],
        "path": str(path),
        "version": 1,
        "size": size,
        "dimension": 64,
        "vectors": "towers",
        "queries": BATCH_ROWS,
        "threads": os.cpu_count(),
        "row_type": IvfConfig.row_type,
        "exact": str(path.parent.parent / "exact.npy"),
    }
    started = time.monotonic()
    path.parent.mkdir()
    built = json.loads(
        run_python(
            *("-m", "shortlist.export.bench.index_child"),
            task=f"{index}, {size} candidates: built",
            timeout=_TIMEOUT,
            order=order,
            remedy="use a smaller --size",
        )
    )
    recalls = [target["target"] for target in built["targets"]]
    progress(f"{index}, {size:,} candidates: built in {time.monotonic() - started:.0f} s {recalls}")


def _measure(index: str, path: Path, folder: Path, args: argparse.Namespace) -> Row:
    options = RetrievalOptions(k=args.k)
    with BulkServable(path, options=options) as servable:
        known = servable.users()
        users = pa.array([known[row % len(known)].as_py() for row in range(args.users)])
        queries = pa.Table.from_arrays([users], schema=pa.schema([USERS]))
        runs = [
            servable.prepared(queries.slice(start, BATCH_ROWS).combine_chunks().to_batches()[0])
            for start in range(0, args.users, BATCH_ROWS)
        ]
        alone, whole = [], []
        runs[0]()
        for number in range(_ROUNDS):
            alone.append(_seconds(lambda: [run() for run in runs]))
            output = folder / f"recs-{number}.parquet"
            whole.append(_seconds(partial(_bulk, servable, queries, output)))
    sizes = [file.stat().st_size for file in output.glob("part-*")]
    return Row(
        candidates=args.size,
        index=index,
        signature=args.users / min(alone)[0],
        bulk=args.users / min(whole)[0],
        share=min(alone)[0] / min(whole)[0],
        signature_cpu_us=_cpu_us(alone, args.users),
        cpu_us=_cpu_us(whole, args.users),
        file_bytes=sum(sizes) / args.users,
    )


def _cpu_us(rounds: Sequence[tuple[float, float]], users: int) -> float:
    return statistics.median(cpu for _, cpu in rounds) / users * 1e6


def _bulk(servable: BulkServable, queries: pa.Table, folder: Path) -> None:
    with open_output(folder, {}, form="parquet", overwrite=False) as output:
        run_bulk(
            servable.answer,
            servable.answers(queries.schema),
            queries,
            output,
            progress=lambda counts: None,
        )


def _seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Return elapsed and CPU time of a call."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - cpu


def _table(rows: list[Row]) -> str:
    head = [
        "index",
        "candidates",
        "signature alone",
        "recommend",
        "share",
        "CPU alone",
        "CPU",
        "file",
    ]
    units = [
        [
            row.index,
            f"{row.candidates:,}",
            f"{row.signature:,.0f} users/s",
            f"{row.bulk:,.0f} users/s",
            f"{row.share:.0%}",
            f"{row.signature_cpu_us:,.0f} us/user",
            f"{row.cpu_us:,.0f} us/user",
            f"{row.file_bytes:,.0f} B/user",
        ]
        for row in rows
    ]
    return table([head, *units], markdown=True)
