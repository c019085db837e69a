"""One measurement in a process of its own, so that memory and threads are its alone.

`python -m shortlist.export.bench.measure` reads what to do as JSON on stdin and writes the result
as JSON on stdout.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.bench.compare import compare, search_signature
from shortlist.export.bench.index_rows import K
from shortlist.export.bench.memory import peak_bytes, resident_bytes
from shortlist.export.bench.vectors import make_vectors
from shortlist.export.config import ExportConfig, IndexConfig, IvfConfig
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.build import build_index
from shortlist.export.index.tuning import exact_positions, explore
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.saved_model import save
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.servable.warmup import write_warmup_records
from shortlist.export.towers.ids import IdLookup

__all__ = ["main"]

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
    result = {"build": _build, "compare": _compare, "load": _load}[order["what"]](order)
    json.dump(result, sys.stdout)
    return 0


def _build(order: dict[str, Any]) -> dict[str, Any]:
    """Builds, tunes and saves one index."""
    count, dimension = order["size"], order["dimension"]
    candidates = make_vectors(order["vectors"], count, dimension, seed=_CANDIDATE_SEED)
    queries = _queries(order)
    ids = [str(i) for i in range(count)]
    start = time.perf_counter()
    index = build_index(order["index"], candidates, ids, _config(order))
    build_seconds = time.perf_counter() - start
    exact = _exact(Path(order["exact"]), queries, candidates)
    del candidates
    found = explore(index, queries, exact, order["recalls"])
    targets: list[dict[str, Any]] = []
    signatures = {}
    for target, point in found.chosen.items():
        index.set_effort(point.effort)
        name = f"at_recall_{target}"
        signatures[name] = search_signature(index, K)
        targets.append(
            {
                "target": target,
                "signature": name,
                "effort": list(point.effort),
                "parameters": index.parameters(),
            }
        )
    if targets:
        _save(Path(order["path"]), order, index, queries, ids, signatures)
    return {
        "build_seconds": build_seconds,
        "peak_bytes": peak_bytes(),
        "curve": [(point.latency_ms, point.recall) for point in found.curve],
        "targets": targets,
    }


def _config(order: dict[str, Any]) -> IndexConfig:
    config = ExportConfig().index_config(order["index"])
    return replace(config, row_type=order["row_type"]) if isinstance(config, IvfConfig) else config


def _queries(order: dict[str, Any]) -> npt.NDArray[np.float32]:
    return make_vectors(order["vectors"], order["queries"], order["dimension"], seed=_QUERY_SEED)


def _exact(
    path: Path, queries: npt.NDArray[np.float32], candidates: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Positions of the exact answers, which the first index's process leaves to the others."""
    if not path.exists():
        np.save(path, exact_positions(queries, candidates, K))
    exact: npt.NDArray[np.int64] = np.load(path)
    return exact


def _compare(order: dict[str, Any]) -> dict[str, Any]:
    """Times what was saved of all indexes in turns."""
    measured = compare(order["servables"], _queries(order), np.load(order["exact"]))
    return {"measured": measured, "peak_bytes": peak_bytes()}


def _save(
    path: Path,
    order: dict[str, Any],
    index: CandidateIndex,
    queries: npt.NDArray[np.float32],
    ids: list[str],
    signatures: dict[str, Any],
) -> None:
    """Saves a servable as `shortlist export` does, with further signatures to be timed."""
    servable = RetrievalServable(
        query_tower=_TableTower(queries),
        index=index,
        candidate_ids=ids,
        candidate_filter=CandidateFilter({}, len(ids)),
        seen=None,
        version=order["version"],
        top_k=K,
    )
    save(servable, path, {**servable.signatures(), **signatures})
    name = contract.servable_name("bench", order["index"])
    write_warmup_records(path, name, servable.example_requests("0", "0"))


def _load(order: dict[str, Any]) -> dict[str, Any]:
    """Memory and first answer of a saved servable in a fresh process."""
    before = resident_bytes(os.getpid())
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
        "peak_bytes": peak_bytes(),
        "first_query_seconds": first,
        "resident_bytes": resident_bytes(os.getpid()) - before,
        "size_bytes": size,
    }


if __name__ == "__main__":
    sys.exit(main())
