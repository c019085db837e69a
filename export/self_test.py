"""What every published version carries to be judged by, made before it is saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clients import contract
from export._tf import tf
from export.data.dataset import Dataset
from export.split import Split
from serving.golden import GoldenQuery, write_golden
from serving.probe import Probe, write_corpus, write_probe

__all__ = ["corpus_facts", "write_self_test"]

_GOLDEN_USERS = 5
_PROBE_USERS = 200
_PROBE_HELD_OUT = 1000
_K = contract.DEFAULT_K


def write_self_test(
    path: Path,
    *,
    signatures: Mapping[str, Any],
    example_requests: Mapping[str, Sequence[Mapping[str, Any]]],
    query_embeddings: npt.NDArray[np.float32],
    candidate_embeddings: npt.NDArray[np.float32],
    dataset: Dataset,
    split: Split,
    seed: int,
) -> None:
    """Writes known answers, a probe and the corpus into a version's folder.

    The answers come from the signatures as they are in memory, so that loading has
    something to agree with.

    Args:
        path: Folder of the version.
        signatures: Concrete functions by signature name.
        example_requests: Inputs by signature name, as for warm-up.
        query_embeddings: `[num_users, d]`.
        candidate_embeddings: `[n, d]`, what the index was built from.
        dataset: Users, candidates and interactions.
        split: Which interactions were held out.
        seed: Of the sample.
    """
    random = np.random.default_rng(seed)
    users = _sample(random, len(dataset.user_ids), _PROBE_USERS)
    requests = [
        (
            contract.SERVING_DEFAULT,
            {contract.USER_ID: _ids(dataset.user_ids, users[:_GOLDEN_USERS])},
        ),
        *((name, inputs) for name, found in example_requests.items() for inputs in found),
    ]
    write_golden(path, [_golden(name, signatures[name], inputs) for name, inputs in requests])
    held_out = split.held_out[_sample(random, len(split.held_out), _PROBE_HELD_OUT)]
    scores = query_embeddings[users] @ candidate_embeddings.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
    candidate_ids = dataset.candidate_ids
    probe = Probe(
        k=_K,
        user_ids=[str(dataset.user_ids[user]) for user in users],
        exact_ids=[[str(candidate_ids[one]) for one in row] for row in best],
        held_out_user_ids=[str(dataset.user_ids[one]) for one in dataset.user_positions[held_out]],
        held_out_candidate_ids=[
            str(candidate_ids[one]) for one in dataset.candidate_positions[held_out]
        ],
    )
    write_probe(path, probe)
    write_corpus(path, [str(one) for one in candidate_ids])


def corpus_facts(candidate_embeddings: npt.NDArray[np.float32]) -> dict[str, int]:
    """What the corpus gate wants to know of the embeddings, for the manifest."""
    norms = np.linalg.norm(candidate_embeddings, axis=1)
    return {
        "non_finite": int(np.count_nonzero(~np.isfinite(norms))),
        "zero_norm": int(np.count_nonzero(norms == 0)),
    }


def _sample(random: np.random.Generator, total: int, size: int) -> npt.NDArray[np.int64]:
    return np.sort(random.choice(total, size=min(size, total), replace=False))


def _ids(ids: Sequence[str], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    return np.array([ids[position] for position in positions], dtype=object)


def _golden(name: str, function: Any, inputs: Mapping[str, Any]) -> GoldenQuery:
    """One query with the answer of the function in memory."""
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
        return [_texts(one) for one in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
