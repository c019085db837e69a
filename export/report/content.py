"""Content of a report, independent of its looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shortlist.export.config import Protocol
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.judge import Judged
from shortlist.export.towers.trained import EpochRecord
from shortlist.serving.repository.version import GateResult

__all__ = ["DataFacts", "IndexFacts", "Report", "SampleUser", "Shown", "data_facts"]


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """A data set and its split.

    Attributes:
        name: Name of the data set.
        users: Number of users.
        candidates: Size of the corpus.
        interactions: Number of interactions in all.
        skipped: Number of rows that were left out, by fault.
        training: Interactions to train on.
        validation: Interactions that decide when training stops.
        held_out: Interactions that judge the model.
        method: Method of the split, such as `random`.
        seed: Random seed of the split and the training.
    """

    name: str
    users: int
    candidates: int
    interactions: int
    training: int
    validation: int
    held_out: int
    method: str
    seed: int
    skipped: Mapping[str, int] = field(default_factory=dict)


def data_facts(dataset: Dataset, split: Split, *, seed: int) -> DataFacts:
    """Return the facts of a data set and its split."""
    return DataFacts(
        name=dataset.name,
        users=len(dataset.user_ids),
        candidates=len(dataset.candidate_ids),
        interactions=dataset.num_interactions,
        training=len(split.training),
        validation=len(split.validation),
        held_out=len(split.held_out),
        method=split.method,
        seed=seed,
        skipped=dataset.skipped,
    )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A candidate as readers see it.

    Attributes:
        title: Name of the candidate.
        attributes: Properties in one line, such as `Drama, War · 1998`; may be empty.
        rating: Rating by the user, if any.
        chosen: The user's held-out part contains it.
    """

    title: str
    attributes: str
    rating: float | None = None
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class SampleUser:
    """A user with a part of the history, and recommendations.

    Attributes:
        kind: Reason for the choice, such as `The most active user`.
        user_id: User id; `None` without one.
        num_interactions: Number of interactions before the recommendations.
        num_held_out: Number of held-out interactions that recommendations can contain.
        history: The last of these interactions, latest first.
        recommendations: Candidates as applications get them, best first: with seen candidates
            excluded, those that the user does not have.
    """

    kind: str
    user_id: str | None
    num_interactions: int
    num_held_out: int
    history: Sequence[Shown]
    recommendations: Sequence[Shown]


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """One published servable.

    Attributes:
        servable: Model name.
        kind: Kind of index.
        exact: The index is brute force.
        k: Cut-off of the recall.
        num_queries: Number of queries that the recall is measured on.
        target: Recall to reach; `None` if there was no target.
        recall: Measured recall.
        latency_ms: Time of one query at that recall, in the exporting process.
        curve: `(latency in ms, recall)` of every point tried.
        parameters: Parameters of the index.
        size_bytes: Size of the servable on disk.
    """

    servable: str
    kind: str
    exact: bool
    k: int
    num_queries: int
    target: float | None
    recall: float
    latency_ms: float
    curve: Sequence[tuple[float, float]]
    parameters: Mapping[str, Any]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything in one report.

    Attributes:
        model: Name of the model, or of the recipe if nothing is published.
        version: Version number; `None` if nothing is published.
        created: Time of creation in UTC, as in the manifest.
        data: Data set and split; `None` if the model was trained elsewhere.
        judged: Metrics of the model, then of the baselines; empty if it was trained elsewhere.
        facts: Further facts by name, such as the size of the corpus without `data`.
        rates: Metrics of a model that was trained elsewhere by name; may be empty.
        num_rated: Number of interactions that `rates` were measured on.
        epochs: Number of epochs of the final training.
        records: Epochs of the training that chose this number; may be empty.
        samples: Users with their recommendations.
        indexes: Published servables; may be empty.
        gates: Results of the gates by servable; empty if none ran.
        config: Whole configuration, in JSON values.
        packages: Versions of packages by name.
        protocol: Protocol that applications ask by; the headline and the charts use it.
        features: Names of the features that requests can give; may be empty.
        settings: Settings of the query tower, chosen on the validation part if there is one.
    """

    model: str
    version: int | None
    created: str
    samples: Sequence[SampleUser]
    config: Mapping[str, Any]
    packages: Mapping[str, str]
    protocol: Protocol
    data: DataFacts | None = None
    judged: Sequence[Judged] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    num_rated: int = 0
    epochs: int = 0
    records: Sequence[EpochRecord] = ()
    features: Sequence[str] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
    indexes: Sequence[IndexFacts] = ()
    gates: Mapping[str, Sequence[GateResult]] = field(default_factory=dict)
