"""Times saved servables of all indexes in turns, in one process."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.bench.index_rows import BATCH, BATCHES, SINGLE
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.tuning import recall_at_k
from shortlist.export.index.turns import Times, time_in_turns

__all__ = ["compare", "search_signature"]

_POSITIONS = "positions"  # an output of the signatures that are timed: [batch, k]

Search = Callable[[tf.Tensor], npt.NDArray[np.int32]]


def search_signature(index: CandidateIndex, k: int) -> Any:
    """A signature that searches with the effort that the index has now, a constant to it.

    As in a servable; tuning gives the effort as a tensor, which leaves less to simplify.
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
    """Recall and times of some signatures of some servables, see `search_signature`.

    Args:
        servables: By name, the path of each and the signatures to time.
        queries: `[num_queries, d]`, at least a batch of them.
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
    single = [tf.constant(queries[i : i + 1]) for i in range(len(queries))]
    one = time_in_turns(_calls(searches, single), SINGLE)
    many = time_in_turns(_calls(searches, batches), BATCHES)
    measured: dict[str, dict[str, dict[str, float]]] = {name: {} for name in servables}
    for key, recall in recalls.items():
        name, signature = key
        measured[name][signature] = {"recall": recall, **_summary(one[key], many[key])}
    return measured


def _search(loaded: Any, signature: str) -> Search:
    function = loaded.signatures[signature]

    def search(query_embedding: tf.Tensor) -> npt.NDArray[np.int32]:
        answers = function(**{contract.QUERY_EMBEDDING: query_embedding})
        found: npt.NDArray[np.int32] = answers[_POSITIONS].numpy()
        return found

    return search


def _batches(queries: npt.NDArray[np.float32]) -> list[tf.Tensor]:
    """All queries in whole batches; the last one begins again with the first queries."""
    rows = np.arange(-(-len(queries) // BATCH) * BATCH) % len(queries)
    return [tf.constant(queries[part]) for part in rows.reshape(-1, BATCH)]


def _recall(search: Search, batches: Sequence[tf.Tensor], exact: npt.NDArray[np.int64]) -> float:
    found = np.concatenate([search(batch) for batch in batches])
    return recall_at_k(found[: len(exact)], exact)


def _calls(
    searches: Mapping[tuple[str, str], Search], inputs: Sequence[tf.Tensor]
) -> dict[tuple[str, str], Callable[[int], object]]:
    """Searches of the i-th input, from the first again after the last."""

    def call_with(search: Search) -> Callable[[int], object]:
        return lambda i: search(inputs[i % len(inputs)])

    return {key: call_with(search) for key, search in searches.items()}


def _summary(one: Times, many: Times) -> dict[str, float]:
    return {
        "p50_ms": float(np.median(one.elapsed_ms)),
        "p99_ms": float(np.percentile(one.elapsed_ms, 99)),
        "cpu_ms": float(np.median(one.cpu_ms)),
        "batch_ms": float(np.median(many.elapsed_ms)) / BATCH,
        "batch_cpu_ms": float(np.median(many.cpu_ms)) / BATCH,
    }
