"""The steps of an export: train, evaluate, index, save, run the gates, report, publish."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.export.config import ExportConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.questions import held_out_questions
from shortlist.export.data.split import Split, configured_split
from shortlist.export.evaluation.held_out import held_out_facts
from shortlist.export.evaluation.judge import Judged, judge_baselines, judge_model
from shortlist.export.gates.settings import GateSettings
from shortlist.export.preflight import check_indexes
from shortlist.export.progress import Progress, StepTimer
from shortlist.export.publication import (
    RECALL_QUERIES,
    GateResults,
    PublishedServables,
    Staged,
    publish_servables,
)
from shortlist.export.report.content import Report
from shortlist.export.report.publication import export_report
from shortlist.export.servable.contents import contents_of_training
from shortlist.export.servable.saved_model import check_producer
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.checkpoint import (
    STATE_FOLDER,
    CheckpointConfig,
    remove_checkpoint,
)
from shortlist.export.training.states.warm_start import WarmStart
from shortlist.export.training.train import train
from shortlist.export.training.workers import Workers
from shortlist.serving.repository.removed import RemovedList
from shortlist.serving.repository.version import DriftReference

__all__ = [
    "ExportResult",
    "Trained",
    "baseline_steps",
    "help_train",
    "publish_trained",
    "run_export",
    "train_and_judge",
]

log = logging.getLogger(__name__)

_RESAMPLES = 1000  # for the metrics' intervals


@dataclass(frozen=True, kw_only=True)
class ExportResult(PublishedServables):
    """A published export.

    Attributes:
        metrics: Hit rates on the held-out part, as in the manifest.
        baselines: The headline metric of each baseline that was measured.
        features: Values of the features that requests can give, by name.
    """

    metrics: Mapping[str, Any]
    baselines: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model with its evaluation.

    Attributes:
        model: Towers and their embeddings.
        metrics: Hit rates on the held-out part, for the manifest.
        split: Training, validation and held-out interactions.
        reference: What to measure drift from, for the manifest; None if nothing was measured.
        judged: Evaluations of the model and baselines for the report; empty for no report.
        warm_start: Facts about the training that it started from, if any, for the manifest.
        state: Folder with the state of the training; None for none.
    """

    model: TrainedModel
    metrics: Mapping[str, Any]
    split: Split
    reference: DriftReference | None = None
    judged: Sequence[Judged] = ()
    warm_start: Mapping[str, Any] | None = None
    state: Path | None = None


def run_export(
    dataset: Dataset,
    config: ExportConfig,
    repository_root: Path,
    *,
    progress: Progress | None = None,
    gates: GateSettings | None = None,
    checkpoints: CheckpointConfig | None = None,
    workers: Workers | None = None,
    baselines: Sequence[str] = ("popularity",),
    allow_again: bool = False,
    warm_start: WarmStart | None = None,
) -> ExportResult:
    """Train a model and publish it through every configured index.

    Servers see nothing before all servables are complete.

    Args:
        dataset: Interactions and catalogue.
        config: Every other setting that affects the result.
        repository_root: Model repository, created if missing.
        progress: Progress callback, called for each step and training batch.
        gates: Limits of the gates, or None for the defaults.
        checkpoints: Checkpoints to resume an interrupted training from, removed after
            publication; None for no checkpoints.
        workers: Processes that train together, this one being the chief; the others call
            `help_train`. None for this process alone.
        baselines: Names from `evaluation.baselines.BASELINES` to show in the report.
        allow_again: Let candidates back in that were removed from the model.
        warm_start: Version whose training this one starts from; None for one from scratch.

    Raises:
        GateError: A gate failed; nothing was published.
        RepositoryError: The repository is not writable, or another export holds its lock.
        WarmStartError: The earlier training does not fit the data or the configuration.
        ValueError: The data set is too small, training diverged, an index misses the recall,
            or the target server lacks an op.
    """
    check_indexes(config)  # before the training, to fail early
    if gates is not None and "ops" not in gates.allow:
        check_producer(gates.target_producer)
    timer = StepTimer(progress or Progress())
    dataset = _without_removed(dataset, RemovedList(repository_root, config.model), allow_again)
    with tempfile.TemporaryDirectory(prefix="shortlist-") as temporary:
        state = None
        if config.training_state and config.train.loss == "user_softmax":
            state = Path(temporary) if checkpoints is None else checkpoints.folder / STATE_FOLDER
        trained = train_and_judge(
            dataset,
            config,
            timer=timer,
            checkpoints=checkpoints,
            workers=workers,
            baselines=baselines,
            warm_start=warm_start,
            state=state,
        )
        result = publish_trained(
            trained, dataset, config, repository_root, timer=timer, gates=gates
        )
    if checkpoints is not None:
        remove_checkpoint(checkpoints.folder)
    return result


def _without_removed(dataset: Dataset, removed: RemovedList, allow_again: bool) -> Dataset:
    """Return the data without candidates that were removed from the model, or allow them again."""
    if allow_again:
        removed.change(allow=dataset.candidate_ids)
        return dataset
    left = dataset.without(frozenset(removed.ids()))
    gone = len(dataset.candidate_ids) - len(left.candidate_ids)
    if gone:
        log.warning(
            "%d candidates were removed from the model and stay out; --allow-again lets them "
            "back in",
            gone,
        )
    return left


def help_train(
    dataset: Dataset,
    config: ExportConfig,
    *,
    workers: Workers,
    checkpoints: CheckpointConfig | None = None,
) -> None:
    """Take part in the training of `run_export` as a worker that is not the chief.

    Raises:
        ValueError: As for `run_export`, or another worker was lost.
    """
    split = configured_split(dataset, config.train)
    train(dataset, split, config.towers, config.train, checkpoints=checkpoints, workers=workers)


def publish_trained(
    trained: Trained,
    dataset: Dataset,
    config: ExportConfig,
    repository_root: Path,
    *,
    timer: StepTimer,
    gates: GateSettings | None = None,
) -> ExportResult:
    """Run the steps of `run_export` that come after training."""
    contents = contents_of_training(
        trained.model,
        dataset,
        trained.split,
        config,
        metrics=trained.metrics,
        reference=trained.reference,
        warm_start=trained.warm_start,
        training_state=trained.state,
    )

    def report(staged: Staged, results: GateResults) -> Report:
        return export_report(
            staged,
            results,
            dataset=dataset,
            split=trained.split,
            model=trained.model,
            judged=trained.judged,
            config=config,
        )

    published = publish_servables(
        contents,
        _held_out_queries(trained, dataset, config),
        config,
        repository_root,
        timer=timer,
        gates=gates,
        report=report if trained.judged else None,
    )
    return ExportResult(
        **vars(published),
        metrics=trained.metrics,
        features=trained.model.features,
        baselines={
            row.name: row.evaluation.headline(config.train.protocol).value
            for row in trained.judged[1:]
            if row.evaluation is not None
        },
    )


def train_and_judge(
    dataset: Dataset,
    config: ExportConfig,
    *,
    timer: StepTimer,
    checkpoints: CheckpointConfig | None = None,
    workers: Workers | None = None,
    baselines: Sequence[str] = (),
    resamples: int = _RESAMPLES,
    warm_start: WarmStart | None = None,
    state: Path | None = None,
) -> Trained:
    """Run the steps of `run_export` up to the evaluation; leave a state in a folder, if any.

    Raises:
        WarmStartError: The earlier training does not fit the data or the configuration.
        ValueError: The data set is too small, nothing can be hit by the configured protocol, or
            training diverged.
    """
    with timer.step("split") as measures:
        split = configured_split(dataset, config.train)
        held_out = held_out_facts(dataset, split)
        held_out.check(config.train.protocol)
        method = ": ".join(filter(None, (split.method, split.reason)))
        measures.append(f"{len(split.fitted)} interactions to train on ({method})")
        measures.append(str(held_out))
    advice = held_out.advice(config.train.protocol, seen_last=config.train.seen_last_epochs > 0)
    if advice is not None:
        log.warning(advice)
    with timer.step("train") as measures:
        model = train(
            dataset,
            split,
            config.towers,
            config.train,
            progress=timer.progress,
            checkpoints=checkpoints,
            workers=workers,
            warm_start=warm_start,
            state=state,
        )
        measures.append(f"{len(split.fitted)} interactions, {model.epochs} epochs")
        facts = None if warm_start is None else warm_start.facts(dataset)
        if facts is not None:
            measures.append(f"on from {facts['name']}")
            measures += [f"{facts[kind]['new']} new {kind}" for kind in ("users", "candidates")]
        # A share or weight of 0 leaves its part out.
        measures += [f"{name} {value:g}" for name, value in model.settings.items() if value]
        if dataset.user_attributes or dataset.context:
            taken = ", ".join(model.features)
            measures.append(f"features {taken}" if taken else "features unused")
    with timer.step("evaluate") as measures:
        evaluation = judge_model(model, dataset, split, resamples=resamples)
        measures.append(str(evaluation.headline(config.train.protocol)))
    judged = [Judged(name="this model", evaluation=evaluation)]
    judged += baseline_steps(
        dataset, split, baselines, config.train, timer=timer, resamples=resamples
    )
    return Trained(
        model=model,
        metrics=evaluation.as_json(config.train.protocol),
        split=split,
        reference=evaluation.references[config.train.protocol],
        judged=judged,
        warm_start=facts,
        state=state,
    )


def baseline_steps(
    dataset: Dataset,
    split: Split,
    names: Sequence[str],
    config: TrainConfig,
    *,
    timer: StepTimer,
    resamples: int = _RESAMPLES,
) -> list[Judged]:
    """Judge baselines, one step for each; see `judge_baselines`."""
    judged = []
    for name in names:
        with timer.step(name) as measures:
            row = judge_baselines(dataset, split, [name], seed=config.seed, resamples=resamples)[0]
            if row.evaluation is None:
                measures.append(f"omitted: {row.problem}")
            else:
                measures.append(str(row.evaluation.headline(config.protocol)))
                measures += [f"{key} {value:g}" for key, value in row.evaluation.settings.items()]
        judged.append(row)
    return judged


def _held_out_queries(
    trained: Trained, dataset: Dataset, config: ExportConfig
) -> npt.NDArray[np.float32]:
    """Return the queries of some held-out questions."""
    questions = held_out_questions(dataset, trained.split)
    if len(questions) > RECALL_QUERIES:
        random = np.random.default_rng(config.train.seed)
        questions = questions.take(random.choice(len(questions), RECALL_QUERIES, replace=False))
    return trained.model.embed(questions.askers, questions.histories)
