"""Known answers, probe, corpus and sampled users that every version carries for its gates."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import hash_ids
from shortlist.export.data.split import Split
from shortlist.export.index.tuning import exact_positions
from shortlist.export.towers.trained import TrainedModel
from shortlist.serving.repository.golden import GoldenQuery, write_golden
from shortlist.serving.repository.probe import (
    Interaction,
    Probe,
    SampledUser,
    UserSample,
    write_corpus,
    write_probe,
    write_user_sample,
)
from shortlist.serving.repository.version import CorpusFacts

__all__ = [
    "PROBE_SIZE",
    "ProbeQueries",
    "corpus_facts",
    "sample_probe",
    "sample_users",
    "write_self_test",
]

_GOLDEN_QUERIES = 5
PROBE_SIZE = 200  # queries
_SAMPLED_INTERACTIONS = 100_000  # of all users in the sample, about 1 MB
_MOST_INTERACTIONS = 2000  # of one user: more make requests that exclude them slow
_K = contract.DEFAULT_K
_ROWS = 100_000  # embeddings whose norms are computed at once


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeQueries:
    """Queries of a probe.

    Attributes:
        user_ids: `[num_queries]` user ids, or other names of the queries.
        queries: `[num_queries, r]` queries of an index.
        inputs: Inputs of `serving_default` by name; None if `user_ids` are its only input.
    """

    user_ids: Sequence[str]
    queries: npt.NDArray[np.float32]
    inputs: Mapping[str, Sequence[Any]] | None = None

    def probe(self, rows: npt.NDArray[np.float32], candidate_ids: Sequence[str]) -> Probe:
        """Return the queries with their exact answers.

        Args:
            rows: `[m, r]` rows of the index.
            candidate_ids: `[m]`.
        """
        best = exact_positions(self.queries, rows, _K)
        return Probe(
            k=_K,
            user_ids=list(self.user_ids),
            exact_ids=[[candidate_ids[position] for position in row] for row in best.tolist()],
            inputs=self.inputs,
        )


def sample_probe(model: TrainedModel, user_ids: Sequence[str], *, seed: int) -> ProbeQueries:
    """Sample users of a model; `seed` is that of the sample."""
    total = len(user_ids)
    random = np.random.default_rng(seed)
    users = np.sort(random.choice(total, size=min(PROBE_SIZE, total), replace=False))
    return ProbeQueries(
        user_ids=[user_ids[user] for user in users], queries=model.embed_users(users)
    )


def sample_users(
    dataset: Dataset,
    split: Split,
    *,
    most: int = _SAMPLED_INTERACTIONS,
    most_per_user: int = _MOST_INTERACTIONS,
) -> UserSample:
    """Collect all interactions of the users with the lowest hashes.

    Args:
        dataset: Interactions.
        split: Fitted, held-out and given interactions.
        most: Interactions to collect at most.
        most_per_user: Interactions of one user at most; users with more are left out.
    """
    hashes = hash_ids(dataset.user_ids)
    order = np.argsort(hashes)
    counts = np.bincount(dataset.user_positions, minlength=len(order))[order]
    sizes = np.where(counts > most_per_user, 0, counts)
    covered = int(np.searchsorted(np.cumsum(sizes), most, side="right"))
    bound = int(hashes[order[covered]]) if covered < len(order) else 2**64
    chosen = order[:covered][sizes[:covered] > 0]
    parts = (
        _by_user(dataset, part, chosen) for part in (split.fitted, split.held_out, split.given)
    )
    return UserSample(
        bound=bound,
        left_out=frozenset(
            dataset.user_ids[user] for user in order[:covered][counts[:covered] > most_per_user]
        ),
        users={
            dataset.user_ids[user]: SampledUser(fitted=fitted, held_out=held_out, given=given)
            for user, fitted, held_out, given in zip(chosen.tolist(), *parts, strict=True)
        },
    )


def _by_user(
    dataset: Dataset, part: npt.NDArray[np.int64], users: npt.NDArray[np.int64]
) -> list[tuple[Interaction, ...]]:
    """Return the interactions of each user in a part of the data, in the order of the data."""
    places = np.full(len(dataset.user_ids), -1, np.int64)
    places[users] = np.arange(len(users))
    owners = places[dataset.user_positions[part]]
    part, owners = part[owners >= 0], owners[owners >= 0]
    order = np.argsort(owners, kind="stable")
    part, owners = part[order], owners[order]
    candidates = dataset.candidate_positions[part].tolist()
    times = [None] * len(part) if dataset.timestamps is None else dataset.timestamps[part].tolist()
    pairs = list(zip(candidates, times, strict=True))
    starts = np.searchsorted(owners, np.arange(len(users) + 1)).tolist()
    return [tuple(pairs[start:stop]) for start, stop in itertools.pairwise(starts)]


def write_self_test(
    path: Path,
    *,
    signatures: Mapping[str, Any],
    example_requests: Mapping[str, Sequence[Mapping[str, Any]]],
    asked: Mapping[str, npt.NDArray[Any]],
    probe: Probe,
    sample: UserSample | None,
    candidate_ids: Sequence[str],
) -> None:
    """Write known answers, a probe, sampled users and the corpus into a version's folder.

    The answers come from the signatures in memory, for comparison after loading.

    Args:
        path: Folder of the version.
        signatures: Concrete functions by signature name.
        example_requests: Requests by signature name, as for warm-up.
        asked: Queries by input name; known answers are stored for the first ones.
        probe: Queries with their exact answers.
        sample: Result of `sample_users`; None if there are no users to sample.
        candidate_ids: `[n]`.
    """
    requests = [
        (contract.SERVING_DEFAULT, {name: rows[:_GOLDEN_QUERIES] for name, rows in asked.items()}),
        *((name, inputs) for name, examples in example_requests.items() for inputs in examples),
    ]
    write_golden(path, [_golden(name, signatures[name], inputs) for name, inputs in requests])
    write_probe(path, probe)
    if sample is not None:
        write_user_sample(path, sample)
    write_corpus(path, candidate_ids)


def corpus_facts(candidate_embeddings: npt.NDArray[np.float32]) -> CorpusFacts:
    """Count the bad embeddings that the corpus gate looks for."""
    non_finite = zero_norm = 0
    for start in range(0, len(candidate_embeddings), _ROWS):
        norms = np.linalg.norm(candidate_embeddings[start : start + _ROWS], axis=1)
        non_finite += int(np.count_nonzero(~np.isfinite(norms)))
        zero_norm += int(np.count_nonzero(norms == 0))
    return CorpusFacts(non_finite=non_finite, zero_norm=zero_norm)


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
