"""What a report says, before any thought of how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.judge import Judged
from shortlist.export.towers.trained import EpochRecord
from shortlist.serving.repository.version import GateResult

__all__ = ["DataFacts", "IndexFacts", "Report", "SampleUser", "Shown", "data_facts"]


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The data, and how they were parted.

    Attributes:
        name: Of the data set.
        users: How many there are.
        candidates: Size of the corpus.
        interactions: All of them.
        training: Those that were trained on.
        validation: Those that training was stopped by.
        held_out: Those that judge the model.
        method: How they were held out, such as `random`.
        seed: Of the split and of everything else.
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


def data_facts(dataset: Dataset, split: Split, *, method: str, seed: int) -> DataFacts:
    """The facts of a data set and its split."""
    return DataFacts(
        name=dataset.name,
        users=len(dataset.user_ids),
        candidates=len(dataset.candidate_ids),
        interactions=dataset.num_interactions,
        training=len(split.training),
        validation=len(split.validation),
        held_out=len(split.held_out),
        method=method,
        seed=seed,
    )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A candidate as a person sees it.

    Attributes:
        title: Its name.
        attributes: Its properties in one line, such as `Drama, War · 1998`; may be empty.
        rating: What the user gave it; None where there is none.
        chosen: Whether the user has it in the held-out part.
    """

    title: str
    attributes: str
    rating: float | None = None
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class SampleUser:
    """A user with what they had and what they get.

    Attributes:
        kind: Why this one is shown, such as `most active`.
        user_id: None for somebody whom training never saw.
        num_interactions: In the training part.
        num_held_out: Interactions held out.
        history: Some of the training part, best rated or else latest first.
        recommendations: Best first, without what the user has.
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
        servable: Its model name.
        kind: Of index.
        exact: Whether its answers are those of brute force.
        k: Of the recall.
        num_queries: That recall was measured with.
        target: Recall asked for; None where nothing was.
        recall: Recall that it has.
        latency_ms: Time of one query at that recall, in the exporting process.
        curve: `(latency in ms, recall)` of everything that was tried.
        parameters: Those in effect.
        size_bytes: Of the servable on disk.
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
        model: Name of the model, or of the recipe where nothing was published.
        version: Number under which it is published; None where it is not.
        created: When, in UTC, as in the manifest.
        data: The data.
        judged: The model, then the baselines.
        epochs: How long the final model was trained.
        records: Course of the training that chose the number of epochs; may be empty.
        samples: Users to look at.
        indexes: Published servables; empty where nothing was published.
        gates: Results of the gates by servable; empty where none ran.
        config: The whole configuration, in values that JSON knows.
        packages: Versions of packages by name.
    """

    model: str
    version: int | None
    created: str
    data: DataFacts
    judged: Sequence[Judged]
    epochs: int
    records: Sequence[EpochRecord]
    samples: Sequence[SampleUser]
    config: Mapping[str, Any]
    packages: Mapping[str, str]
    indexes: Sequence[IndexFacts] = ()
    gates: Mapping[str, Sequence[GateResult]] = field(default_factory=dict)
