"""Metrics of a model of one's own on interactions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.data.config import DataError
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.reference import buckets
from shortlist.export.index.similarity import Similarity
from shortlist.export.index.tuning import exact_positions
from shortlist.export.own.inputs import read_inputs
from shortlist.export.own.queries import Columns, QuerySource
from shortlist.export.own.vectors import VectorTable
from shortlist.export.servable.self_test import sample_users
from shortlist.serving.repository.probe import UserSample
from shortlist.serving.repository.version import DriftReference, Headline

__all__ = ["Rated", "rate"]

_KS = (10, 100)
_PROTOCOL = "seen_kept"
_INTERACTIONS = 100_000  # that are measured at most


@dataclass(frozen=True, kw_only=True)
class Rated:
    """Hit rates by exact search, with seen candidates kept.

    Attributes:
        rates: Hit rates by name, such as `hit_rate@10`.
        count: Number of interactions that were measured.
        unknown: Number of interactions that were not, because their candidate is not indexed.
        reference: Scores of the best candidates, to measure drift from.
        sample: Users with their interactions, for the gate `quality`; None if users have no ids.
    """

    rates: Mapping[str, float]
    count: int
    unknown: int
    reference: DriftReference
    sample: UserSample | None = None

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate:.4f}" for name, rate in self.rates.items())
        without = f", {self.unknown:,} with other candidates omitted" if self.unknown else ""
        return f"{rates} (seen kept), {self.count:,} interactions{without}"

    def as_json(self) -> dict[str, Any]:
        """Return the metrics for a manifest."""
        metric, value = next(iter(self.rates.items()))
        headline = Headline(metric=metric, protocol=_PROTOCOL, value=value)
        return {
            "headline": headline.as_json(),
            _PROTOCOL: dict(self.rates),
            "held_out": {"interactions": self.count},
        }


def rate(
    path: Path,
    source: QuerySource,
    similarity: Similarity,
    rows: npt.NDArray[np.float32],
    candidates: VectorTable,
    columns: Columns,
) -> Rated:
    """Measure how many interactions a model's best candidates contain.

    Args:
        path: File with a row per interaction: inputs of the query tower, and a candidate id.
        source: Queries.
        similarity: Similarity of queries and candidates.
        rows: Rows of an index over the candidates.
        candidates: Candidates.
        columns: Names of the columns.

    Raises:
        DataError: The file is faulty, or no candidate of it is known.
    """
    texts = [columns.candidate]
    asked, table = read_inputs(path, source.inputs, texts=texts, tower=source.name)
    position_of = {candidate: row for row, candidate in enumerate(candidates.ids)}
    chosen = [position_of.get(candidate, -1) for candidate in table.texts(columns.candidate)]
    targets = np.array(chosen)
    known = np.flatnonzero(targets >= 0)
    if not len(known):
        raise DataError(
            f"{path}: none of its {len(targets)} candidates is indexed, such as "
            f"{table.texts(columns.candidate)[0]!r}; {candidates.name} has ids such as "
            f"{candidates.ids[0]!r}: write them identically"
        )
    if len(known) > _INTERACTIONS:
        known = np.sort(np.random.default_rng(0).choice(known, _INTERACTIONS, replace=False))
    queries = tf.constant(source.embed({name: values[known] for name, values in asked.items()}))
    of_index = similarity.query(queries).numpy()
    best = exact_positions(of_index, rows, max(_KS))
    products = np.einsum("ij,ij->i", of_index, rows[best[:, 0]])
    scores = similarity.score(tf.constant(products[:, None]), queries).numpy()
    hits = best == targets[known][:, None]
    ks = [k for k in _KS if k <= best.shape[1]] or [best.shape[1]]
    return Rated(
        rates={f"hit_rate@{k}": float(hits[:, :k].any(axis=1).mean()) for k in ks},
        count=len(known),
        unknown=int(np.count_nonzero(targets < 0)),
        reference=DriftReference(scores=buckets(scores[:, 0])),
        sample=_sample(asked[contract.USER_ID][known], targets[known], candidates)
        if source.by_user
        else None,
    )


def _sample(
    user_ids: npt.NDArray[Any], targets: npt.NDArray[np.int64], candidates: VectorTable
) -> UserSample:
    """Return users with their interactions, all of which judge the model."""
    users, positions = np.unique(user_ids.astype(str), return_inverse=True)
    dataset = Dataset(
        name=candidates.name,
        user_ids=tuple(users.tolist()),
        candidate_ids=tuple(candidates.ids),
        user_positions=positions.astype(np.int32),
        candidate_positions=targets.astype(np.int32),
        titles=tuple(candidates.ids),
    )
    everything = np.arange(len(targets))
    return sample_users(dataset, Split(training=everything[:0], held_out=everything))
