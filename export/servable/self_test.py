"""Known answers, probe and corpus that every version carries for its gates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.index.tuning import exact_positions
from shortlist.serving.repository.golden import GoldenQuery, write_golden
from shortlist.serving.repository.probe import Probe, write_corpus, write_probe
from shortlist.serving.repository.version import CorpusFacts

__all__ = ["corpus_facts", "make_probe", "write_self_test"]

_GOLDEN_USERS = 5
_PROBE_USERS = 200
_PROBE_HELD_OUT = 1000
_K = contract.DEFAULT_K
_ROWS = 100_000  # embeddings whose norms are computed at once


def make_probe(
    *,
    query_embeddings: npt.NDArray[np.float32],
    candidate_embeddings: npt.NDArray[np.float32],
    dataset: Dataset,
    split: Split,
    seed: int,
) -> Probe:
    """Sample users with their exact answers, and held-out interactions.

    Args:
        query_embeddings: `[num_users, d]`.
        candidate_embeddings: `[n, d]` embeddings that the indexes are built from.
        dataset: Users, candidates and interactions.
        split: Split with the held-out interactions.
        seed: Random seed for the samples.
    """
    random = np.random.default_rng(seed)
    users = _sample(random, len(dataset.user_ids), _PROBE_USERS)
    held_out = split.held_out[_sample(random, len(split.held_out), _PROBE_HELD_OUT)]
    best = exact_positions(query_embeddings[users], candidate_embeddings, _K)

    def ids(all_ids: Sequence[str], positions: npt.NDArray[np.integer]) -> list[str]:
        return [str(all_ids[position]) for position in positions]

    return Probe(
        k=_K,
        user_ids=ids(dataset.user_ids, users),
        exact_ids=[ids(dataset.candidate_ids, row) for row in best],
        held_out_user_ids=ids(dataset.user_ids, dataset.user_positions[held_out]),
        held_out_candidate_ids=ids(dataset.candidate_ids, dataset.candidate_positions[held_out]),
    )


def write_self_test(
    path: Path,
    *,
    signatures: Mapping[str, Any],
    example_requests: Mapping[str, Sequence[Mapping[str, Any]]],
    probe: Probe,
    candidate_ids: Sequence[str],
) -> None:
    """Write known answers, a probe and the corpus into a version's folder.

    The answers come from the signatures in memory, for comparison after loading.

    Args:
        path: Folder of the version.
        signatures: Concrete functions by signature name.
        example_requests: Requests by signature name, as for warm-up.
        probe: Result of `make_probe`; the known answers are for its first users.
        candidate_ids: `[n]`.
    """
    users = np.array(probe.user_ids[:_GOLDEN_USERS], dtype=object)
    requests = [
        (contract.SERVING_DEFAULT, {contract.USER_ID: users}),
        *((name, inputs) for name, examples in example_requests.items() for inputs in examples),
    ]
    write_golden(path, [_golden(name, signatures[name], inputs) for name, inputs in requests])
    write_probe(path, probe)
    write_corpus(path, candidate_ids)


def corpus_facts(candidate_embeddings: npt.NDArray[np.float32]) -> CorpusFacts:
    """Count the bad embeddings that the corpus gate looks for."""
    non_finite = zero_norm = 0
    for start in range(0, len(candidate_embeddings), _ROWS):
        norms = np.linalg.norm(candidate_embeddings[start : start + _ROWS], axis=1)
        non_finite += int(np.count_nonzero(~np.isfinite(norms)))
        zero_norm += int(np.count_nonzero(norms == 0))
    return CorpusFacts(non_finite=non_finite, zero_norm=zero_norm)


def _sample(random: np.random.Generator, total: int, size: int) -> npt.NDArray[np.int64]:
    return np.sort(random.choice(total, size=min(size, total), replace=False))


def _golden(name: str, function: Any, inputs: Mapping[str, Any]) -> GoldenQuery:
    """Return a query with the answer of the function in memory."""
    specs = {spec.name: spec for spec in function.structured_input_signature[0]}
    tensors = [tf.constant(inputs[key], spec.dtype) for key, spec in specs.items()]
    outputs = function(*tensors)
    return GoldenQuery(
        signature=name,
        inputs={key: _plain(np.asarray(value)) for key, value in inputs.items()},
        outputs={key: _plain(value.numpy()) for key, value in outputs.items()},
    )


def _plain(array: npt.NDArray[Any]) -> Any:
    values = array.tolist()
    return _texts(values) if array.dtype == object else values


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(part) for part in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
