"""Measurements of `shortlist bench index`, in processes of their own.

`python -m shortlist.export.bench.index_child` reads its order as JSON on stdin and writes the
result as JSON on stdout.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.bench.index_rows import BATCH, BATCHES, SINGLE, K
from shortlist.export.bench.machine import peak_bytes, resident_bytes
from shortlist.export.bench.synthetic import CANDIDATE_SEED, QUERY_SEED, make_vectors
from shortlist.export.config import ExportConfig, IndexConfig, IvfConfig
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.build import build_index
from shortlist.export.index.tuning import exact_positions, explore, recall_at_k
from shortlist.export.index.turns import Times, time_in_turns
from shortlist.export.servable.askers import KnownUsers
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.saved_model import save
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.servable.warmup import write_warmup_records
from shortlist.export.towers.query_tower import QueryTower
from shortlist.serving.repository.version import size_bytes

__all__ = ["compare", "main", "query_tower", "search_signature"]

_POSITIONS = "positions"  # an output of the signatures that are timed: [batch, k]

Search = Callable[[tf.Tensor], npt.NDArray[np.int32]]


def main() -> int:
    """Run the measurement that stdin describes."""
    order = json.load(sys.stdin)
    threads = order["threads"]
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    result = {"build": _build, "compare": _compare, "load": _load}[order["what"]](order)
    json.dump(result, sys.stdout)
    return 0


def _build(order: dict[str, Any]) -> dict[str, Any]:
    """Build, tune and save one index."""
    count, dimension = order["size"], order["dimension"]
    candidates = make_vectors(order["vectors"], count, dimension, seed=CANDIDATE_SEED)
    queries = _queries(order)
    ids = [str(i) for i in range(count)]
    start = time.perf_counter()
    index = build_index(order["index"], candidates, ids, _config(order))
    build_seconds = time.perf_counter() - start
    exact = _exact(Path(order["exact"]), queries, candidates)
    del candidates
    exploration = explore(index, queries, exact, order["recalls"])
    targets: list[dict[str, Any]] = []
    signatures = {}
    for target, point in exploration.chosen.items():
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
        "curve": [(point.latency_ms, point.recall) for point in exploration.curve],
        "targets": targets,
    }


def _config(order: dict[str, Any]) -> IndexConfig:
    config = ExportConfig().index_config(order["index"])
    return replace(config, row_type=order["row_type"]) if isinstance(config, IvfConfig) else config


def _queries(order: dict[str, Any]) -> npt.NDArray[np.float32]:
    return make_vectors(order["vectors"], order["queries"], order["dimension"], seed=QUERY_SEED)


def _exact(
    path: Path, queries: npt.NDArray[np.float32], candidates: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Positions of the exact answers; the process of the first index stores them for the others."""
    if not path.exists():
        np.save(path, exact_positions(queries, candidates, K))
    exact: npt.NDArray[np.int64] = np.load(path)
    return exact


def _save(
    path: Path,
    order: dict[str, Any],
    index: CandidateIndex,
    queries: npt.NDArray[np.float32],
    ids: list[str],
    signatures: dict[str, Any],
) -> None:
    """Save a servable as `shortlist export` does, with more signatures to time."""
    servable = RetrievalServable(
        askers=KnownUsers(query_tower(queries, len(ids)), index.embeddings),
        index=index,
        candidate_ids=ids,
        candidate_filter=CandidateFilter({}, len(ids)),
        version=order["version"],
        top_k=K,
    )
    save(servable, path, {**servable.signatures(), **signatures})
    name = contract.servable_name("bench", order["index"])
    first = {contract.USER_ID: np.array(["0"], dtype=object)}
    write_warmup_records(path, name, servable.example_requests(first, "0"))


def query_tower(queries: npt.NDArray[np.float32], num_candidates: int) -> QueryTower:
    """Return a query tower whose users "0", "1" and so on are the queries."""
    users = [str(i) for i in range(len(queries))]
    unknown = queries.mean(axis=0)
    return QueryTower.of_table(users, queries, unknown, num_candidates=num_candidates)


def _compare(order: dict[str, Any]) -> dict[str, Any]:
    """Time the saved servables of all indexes in turns."""
    measured = compare(order["servables"], _queries(order), np.load(order["exact"]))
    return {"measured": measured, "peak_bytes": peak_bytes()}


def search_signature(index: CandidateIndex, k: int) -> Any:
    """Return a signature that searches with the current effort of an index.

    The effort is a constant of the graph, as in a servable. Tuning passes it as a tensor, which
    TensorFlow can optimize less.
    """
    k = min(k, index.num_candidates)

    def search(query_embedding: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, positions = index.search(query_embedding, k)
        return {contract.SCORES: scores, _POSITIONS: positions}

    spec = tf.TensorSpec([None, index.dimension], tf.float32, name=contract.QUERY_EMBEDDING)
    return tf.function(search, input_signature=[spec]).get_concrete_function()


def compare(
    servables: Mapping[str, tuple[str, Sequence[str]]],
    queries: npt.NDArray[np.float32],
    exact: npt.NDArray[np.int64],
) -> dict[str, dict[str, dict[str, float]]]:
    """Measure recall and times of the signatures of saved servables, in turns.

    Args:
        servables: Path and names of the `search_signature`s of each servable, by its name.
        queries: `[num_queries, d]`, at least a batch.
        exact: `[num_queries, k]` positions of the exact answers.

    Returns:
        Measures by servable and signature; times in ms, those of a batch per query.
    """
    loaded = {name: tf.saved_model.load(path) for name, (path, _) in servables.items()}
    searches = {
        (name, signature): _search(loaded[name], signature)
        for name, (_, signatures) in servables.items()
        for signature in signatures
    }
    batches = _batches(queries)
    # Also the warm-up: ScaNN builds its searcher at the first query.
    recalls = {key: _recall(search, batches, exact) for key, search in searches.items()}
    queries_alone = [tf.constant(queries[i : i + 1]) for i in range(len(queries))]
    single = time_in_turns(_calls(searches, queries_alone), SINGLE)
    batched = time_in_turns(_calls(searches, batches), BATCHES)
    measured: dict[str, dict[str, dict[str, float]]] = {name: {} for name in servables}
    for key, recall in recalls.items():
        name, signature = key
        measured[name][signature] = {"recall": recall, **_summary(single[key], batched[key])}
    return measured


def _search(loaded: Any, signature: str) -> Search:
    function = loaded.signatures[signature]

    def search(query_embedding: tf.Tensor) -> npt.NDArray[np.int32]:
        answers = function(**{contract.QUERY_EMBEDDING: query_embedding})
        positions: npt.NDArray[np.int32] = answers[_POSITIONS].numpy()
        return positions

    return search


def _batches(queries: npt.NDArray[np.float32]) -> list[tf.Tensor]:
    """All queries in whole batches; the last one is filled up with the first queries."""
    rows = np.arange(-(-len(queries) // BATCH) * BATCH) % len(queries)
    return [tf.constant(queries[part]) for part in rows.reshape(-1, BATCH)]


def _recall(search: Search, batches: Sequence[tf.Tensor], exact: npt.NDArray[np.int64]) -> float:
    positions = np.concatenate([search(batch) for batch in batches])
    return recall_at_k(positions[: len(exact)], exact)


def _calls(
    searches: Mapping[tuple[str, str], Search], inputs: Sequence[tf.Tensor]
) -> dict[tuple[str, str], Callable[[int], object]]:
    """Functions that search the i-th input, starting over after the last."""

    def call_with(search: Search) -> Callable[[int], object]:
        return lambda i: search(inputs[i % len(inputs)])

    return {key: call_with(search) for key, search in searches.items()}


def _summary(single: Times, batch: Times) -> dict[str, float]:
    return {
        "p50_ms": float(np.median(single.elapsed_ms)),
        "p99_ms": float(np.percentile(single.elapsed_ms, 99)),
        "cpu_ms": float(np.median(single.cpu_ms)),
        "batch_ms": float(np.median(batch.elapsed_ms)) / BATCH,
        "batch_cpu_ms": float(np.median(batch.cpu_ms)) / BATCH,
    }


def _load(order: dict[str, Any]) -> dict[str, Any]:
    """Load and query a saved servable in a fresh process; measure its memory."""
    before = resident_bytes(os.getpid())
    loaded = tf.saved_model.load(order["path"])
    for user in ("0", "1"):
        loaded.signatures[contract.SERVING_DEFAULT](user_id=tf.constant([user]))
    return {
        "peak_bytes": peak_bytes(),
        "resident_bytes": resident_bytes(os.getpid()) - before,
        "size_bytes": size_bytes(Path(order["path"])),
    }


if __name__ == "__main__":
    sys.exit(main())
