"""One measurement in a process of its own, so that memory and threads are its alone.

`python -m export.bench.measure` reads what to do as JSON on stdin and writes the result
as JSON on stdout.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clients import contract
from export._tf import tf
from export.bench.vectors import make_vectors
from export.config import ExportConfig
from export.filters import CandidateFilter
from export.index.base import CandidateIndex, Effort
from export.index.build import build_index
from export.index.tuning import (
    RecallPoint,
    exact_positions,
    measure_recall,
    traced_search,
)
from export.lookup import IdLookup
from export.saved_model import save
from export.signatures import RetrievalServable
from export.warmup import write_warmup_records

__all__ = ["BATCH", "K", "main"]

K = 10
BATCH = 64
_CANDIDATE_SEED, _QUERY_SEED = 1, 2


class _TableTower(tf.Module):
    """Query tower whose users are the queries of the measurement."""

    def __init__(self, queries: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self._lookup = IdLookup([str(i) for i in range(len(queries))])
        self._count = len(queries)
        rows = np.concatenate([queries, np.mean(queries, axis=0, keepdims=True)])
        self._table = tf.Variable(rows, trainable=False)

    def __call__(self, user_ids: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._table, self._lookup(user_ids))

    def positions(self, user_ids: tf.Tensor) -> tf.Tensor:
        rows = tf.cast(self._lookup(user_ids), tf.int64)
        return tf.where(rows < self._count, rows, -1)


def main() -> int:
    """Runs the measurement that stdin describes."""
    order = json.load(sys.stdin)
    threads = order["threads"]
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    result = _build(order) if order["what"] == "build" else _load(order)
    json.dump(result, sys.stdout)
    return 0


def _build(order: dict[str, Any]) -> dict[str, Any]:
    """Builds, tunes, times and saves one index."""
    count, dimension = order["size"], order["dimension"]
    candidates = make_vectors(order["vectors"], count, dimension, seed=_CANDIDATE_SEED)
    queries = make_vectors(order["vectors"], order["queries"], dimension, seed=_QUERY_SEED)
    ids = [str(i) for i in range(count)]
    start = time.perf_counter()
    config = ExportConfig().index_config(order["index"])
    index = build_index(order["index"], candidates, ids, config)
    build_seconds = time.perf_counter() - start
    exact = exact_positions(queries, candidates, K)
    del candidates
    curve = measure_recall(index, queries, exact)
    targets = []
    for target in order["recalls"]:
        reaching = [point for point in curve if point.recall >= target]
        if reaching:
            chosen = min(reaching, key=lambda point: point.latency_ms)
            targets.append({"target": target, **_time_point(index, chosen, queries)})
    if order["path"] is not None and targets:
        index.set_effort(Effort(*(targets[-1][name] for name in Effort._fields)))
        _save(Path(order["path"]), order, index, queries, ids)
    return {
        "build_seconds": build_seconds,
        "parameters": index.parameters(),
        "curve": [(point.latency_ms, point.recall) for point in curve],
        "targets": targets,
    }


def _time_point(
    index: CandidateIndex, point: RecallPoint, queries: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Latencies of one effort, for single queries and for batches."""
    effort = Effort(point.num_leaves_to_search, point.num_reordering_candidates)
    search = traced_search(index, K)
    single = _times(lambda i: search(queries[i : i + 1], effort), min(len(queries), 300))
    batches = max(1, min(len(queries) // BATCH, 6))
    batch = _times(lambda i: search(queries[i * BATCH : (i + 1) * BATCH], effort), batches)
    return {
        **effort._asdict(),
        "recall": point.recall,
        "p50_ms": float(np.median(single[0])),
        "p99_ms": float(np.percentile(single[0], 99)),
        "cpu_ms": float(np.median(single[1])),
        "batch_ms": float(np.median(batch[0])) / BATCH,
        "batch_cpu_ms": float(np.median(batch[1])) / BATCH,
    }


def _times(call: Callable[[int], object], count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each call, elapsed and of CPU; the latter bears other work beside it."""
    call(0)
    elapsed, cpu = [], []
    for i in range(count):
        start, cpu_start = time.perf_counter(), time.process_time()
        call(i)
        elapsed.append((time.perf_counter() - start) * 1e3)
        cpu.append((time.process_time() - cpu_start) * 1e3)
    return elapsed, cpu


def _save(
    path: Path,
    order: dict[str, Any],
    index: CandidateIndex,
    queries: npt.NDArray[np.float32],
    ids: list[str],
) -> None:
    servable = RetrievalServable(
        query_tower=_TableTower(queries),
        index=index,
        candidate_ids=ids,
        candidate_filter=CandidateFilter({}, len(ids)),
        seen=None,
        version=order["version"],
        top_k=K,
    )
    save(servable, path, servable.signatures())
    name = contract.servable_name("bench", order["index"])
    write_warmup_records(path, name, servable.example_requests("0", "0"))


def _load(order: dict[str, Any]) -> dict[str, Any]:
    """Memory and first answer of a saved servable in a fresh process."""
    before = _resident_bytes()
    start = time.perf_counter()
    loaded = tf.saved_model.load(order["path"])
    serve = loaded.signatures[contract.SERVING_DEFAULT]
    load_seconds = time.perf_counter() - start
    start = time.perf_counter()
    serve(user_id=tf.constant(["0"]))
    first = time.perf_counter() - start
    serve(user_id=tf.constant(["1"]))
    size = sum(f.stat().st_size for f in Path(order["path"]).rglob("*") if f.is_file())
    return {
        "load_seconds": load_seconds,
        "first_query_seconds": first,
        "resident_bytes": _resident_bytes() - before,
        "size_bytes": size,
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
