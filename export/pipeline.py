"""The whole export: train, evaluate, index, save, publish."""

import gc
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split, make_split
from shortlist.export.evaluation.judge import Judged, judge_baselines, judge_model
from shortlist.export.gates.publication import pass_gates, summary
from shortlist.export.gates.record import GateResult
from shortlist.export.gates.settings import GateSettings
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.build import build_index, custom_ops
from shortlist.export.index.tuning import RecallReport, exact_positions, tune
from shortlist.export.progress import Progress, StepTimer
from shortlist.export.report.publication import export_report, store_report
from shortlist.export.report.recall_latency import recall_latency_svg
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.manifest import build_manifest, write_manifest
from shortlist.export.servable.saved_model import inspect_saved_model, save
from shortlist.export.servable.seen import SeenCandidates
from shortlist.export.servable.self_test import corpus_facts, make_probe, write_self_test
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.servable.targets import check_target
from shortlist.export.servable.warmup import write_warmup_records
from shortlist.export.towers.trained import TrainedModel
from shortlist.export.training.checkpoint import CheckpointConfig, remove_checkpoint
from shortlist.export.training.train import train
from shortlist.export.training.workers import Workers
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.probe import checksums

__all__ = [
    "RECALL_K",
    "RECALL_PICTURE",
    "ExportResult",
    "Trained",
    "help_train",
    "publish_trained",
    "run_export",
]

log = logging.getLogger(__name__)

RECALL_K = 10  # of the recall that indexes are tuned to
RECALL_PICTURE = "recall_latency.svg"  # beside the manifest
_RECALL_QUERIES = 500
_RESAMPLES = 1000  # for the metrics' intervals
# Seconds to wait for another export into the repository, which may index millions of
# candidates; what was trained meanwhile should not be lost.
_LOCK_TIMEOUT = 3600.0


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export published, and how good it is.

    Attributes:
        version: The number that all its servables got.
        servables: Folder of the version by servable name.
        metrics: Hit rates on the held-out part, as in the manifest.
        seconds: What each step took, in order.
        gates: Results of the gates by servable name.
        report: The report, stored with every servable; this is the first one's. None where
            nothing was judged.
    """

    version: int
    servables: Mapping[str, Path]
    metrics: Mapping[str, Any]
    seconds: Mapping[str, float]
    report: Path | None = None
    gates: Mapping[str, Sequence[GateResult]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the indexes are built from, and how good it is.

    Attributes:
        model: The towers and their embeddings.
        metrics: Hit rates on the held-out part, for the manifest.
        split: Which interactions were held out.
        judged: The model and baselines for the report; empty for no report.
    """

    model: TrainedModel
    metrics: Mapping[str, Any]
    split: Split
    judged: Sequence[Judged] = ()


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
) -> ExportResult:
    """Trains a model and publishes it through every configured index.

    Nothing is visible to a server before all servables are complete.

    Args:
        dataset: Interactions and catalogue.
        config: Everything else that decides the outcome.
        repository_root: Model repository, made if missing.
        progress: Told of each step and of the training's batches.
        gates: What the gates require; None for their defaults.
        checkpoints: Where an interrupted training can go on from; taken away after the
            publication. None for nowhere.
        workers: The processes that train, this one being the chief; the others call
            `help_train`. None for this one alone.
        baselines: Names from `evaluation.baselines.BASELINES` to show in the report.

    Raises:
        GateError: A gate failed; nothing was published.
        RepositoryError: The repository cannot be written, or another export holds it.
        ValueError: The data are too few, training diverged, an index misses the recall, or
            the target server lacks an op.
    """
    for index in config.indexes:  # before training, where it can be told so early
        _check_target(config, index, custom_ops(index))
    timer = StepTimer(progress or Progress())
    trained = _train(dataset, config, timer, checkpoints, workers, baselines)
    result = publish_trained(trained, dataset, config, repository_root, timer=timer, gates=gates)
    if checkpoints is not None:
        remove_checkpoint(checkpoints.folder)
    return result


def publish_trained(
    trained: Trained,
    dataset: Dataset,
    config: ExportConfig,
    repository_root: Path,
    *,
    timer: StepTimer,
    gates: GateSettings | None = None,
) -> ExportResult:
    """All of an export that comes after training; see `run_export`.

    One index after the other is built, tuned, saved and let go, so that the memory for
    large corpora is that of the largest index, not of all.
    """
    names = [contract.servable_name(config.model, index) for index in config.indexes]
    queries = _held_out_queries(trained, dataset, config)
    exact = exact_positions(queries, trained.model.candidate_embeddings, RECALL_K)
    common = _Common(trained, dataset, config)
    repository = ModelRepository(repository_root)
    with repository.publisher(names, lock_timeout=_LOCK_TIMEOUT) as publisher:
        for kind, name in zip(config.indexes, names, strict=True):
            with timer.step(f"index {kind}") as measures:
                index = build_index(
                    kind,
                    trained.model.candidate_embeddings,
                    dataset.candidate_ids,
                    config.index_config(kind),
                )
                recall = tune(index, queries, exact, target=config.recall)
                measures.append(f"{len(dataset.candidate_ids)} candidates")
                measures.append(f"recall@{recall.k} {recall.chosen.recall:.3f}")
                measures.extend(_parameters_in_words(index))
            with timer.step(f"save {kind}") as measures:
                path = publisher.stage(name)
                _save(path, publisher.version, common, index, recall)
                measures.append(f"{_size_bytes(path) / 1e6:.1f} MB")
            index.release()
            del index
            gc.collect()  # traced functions and their variables refer to each other
        with timer.step("gates") as measures:
            results = pass_gates(publisher, names, repository, gates or GateSettings())
            measures.append(summary(results))
        if trained.judged:
            with timer.step("report") as measures:
                staged = {name: publisher.staged(name) for name in names}
                size = _store_report(staged, results, trained, dataset, config)
                measures.append(f"{size / 1e3:.0f} kB")
        with timer.step("publish") as measures:
            servables = publisher.publish()
            measures.append(f"version {publisher.version} of {', '.join(names)}")
    return ExportResult(
        version=publisher.version,
        servables=servables,
        metrics=trained.metrics,
        seconds=timer.seconds,
        report=servables[names[0]] / contract.REPORT_FILE if trained.judged else None,
        gates=results,
    )


def _store_report(
    staged: Mapping[str, Path],
    results: Mapping[str, Sequence[GateResult]],
    trained: Trained,
    dataset: Dataset,
    config: ExportConfig,
) -> int:
    """Stores the report in every staged version and returns its size in bytes."""
    report = export_report(
        staged,
        results,
        dataset=dataset,
        split=trained.split,
        model=trained.model,
        judged=trained.judged,
        config=config,
    )
    return store_report(staged, report)


class _Common:
    """What all servables of one export hold or carry, made once."""

    def __init__(self, trained: Trained, dataset: Dataset, config: ExportConfig) -> None:
        self.trained, self.dataset, self.config = trained, dataset, config
        self.candidate_filter = CandidateFilter(dataset.attributes, len(dataset.candidate_ids))
        self.seen = _seen(dataset, trained.split) if config.keep_seen else None
        self.probe = make_probe(
            query_embeddings=trained.model.query_embeddings,
            candidate_embeddings=trained.model.candidate_embeddings,
            dataset=dataset,
            split=trained.split,
            seed=config.train.seed,
        )
        self.corpus_facts = corpus_facts(trained.model.candidate_embeddings)


def help_train(
    dataset: Dataset,
    config: ExportConfig,
    *,
    workers: Workers,
    checkpoints: CheckpointConfig | None = None,
) -> None:
    """The part in an export of the workers that are not the chief: see `run_export`.

    Raises:
        ValueError: As there; or another worker was lost.
    """
    split = _split(dataset, config)
    train(dataset, split, config.towers, config.train, checkpoints=checkpoints, workers=workers)


def _split(dataset: Dataset, config: ExportConfig) -> Split:
    return make_split(
        dataset,
        method=config.train.split,
        held_out_fraction=config.train.held_out_fraction,
        validation_fraction=config.train.validation_fraction,
        seed=config.train.seed,
    )


def _train(
    dataset: Dataset,
    config: ExportConfig,
    timer: StepTimer,
    checkpoints: CheckpointConfig | None,
    workers: Workers | None,
    baselines: Sequence[str],
) -> Trained:
    split = _split(dataset, config)
    with timer.step("train") as measures:
        model = train(
            dataset,
            split,
            config.towers,
            config.train,
            progress=timer.progress,
            checkpoints=checkpoints,
            workers=workers,
        )
        measures.append(f"{len(split.fitted)} interactions, {model.epochs} epochs")
    with timer.step("evaluate") as measures:
        evaluation = judge_model(model, dataset, split, resamples=_RESAMPLES)
        measures.append(f"{len(split.held_out)} held-out interactions")
    judged = [Judged(name="this model", evaluation=evaluation)]
    with timer.step("baselines") as measures:
        judged += judge_baselines(
            dataset, split, baselines, seed=config.train.seed, resamples=_RESAMPLES
        )
        measures.append(", ".join(baselines))
    return Trained(model=model, metrics=evaluation.as_json(), split=split, judged=judged)


def _held_out_queries(
    trained: Trained, dataset: Dataset, config: ExportConfig
) -> npt.NDArray[np.float32]:
    """Query-tower outputs of some users that have held-out interactions."""
    users = np.unique(dataset.user_positions[trained.split.held_out])
    if len(users) > _RECALL_QUERIES:
        users = np.random.default_rng(config.train.seed).choice(
            users, _RECALL_QUERIES, replace=False
        )
    queries: npt.NDArray[np.float32] = trained.model.query_embeddings[users]
    return queries


def _check_target(config: ExportConfig, index: str, ops: Collection[str]) -> None:
    if config.target is not None:
        check_target(config.target, contract.servable_name(config.model, index), ops)


def _seen(dataset: Dataset, split: Split) -> SeenCandidates:
    return SeenCandidates(
        dataset.user_positions[split.fitted],
        dataset.candidate_positions[split.fitted],
        num_users=len(dataset.user_ids),
        num_candidates=len(dataset.candidate_ids),
    )


def _save(
    path: Path, version: int, common: _Common, index: CandidateIndex, recall: RecallReport
) -> None:
    """Saves one servable with its warm-up records and manifest."""
    config, dataset, trained = common.config, common.dataset, common.trained
    servable = RetrievalServable(
        query_tower=trained.model.query_tower,
        index=index,
        candidate_ids=dataset.candidate_ids,
        candidate_filter=common.candidate_filter,
        seen=common.seen,
        rating_head=trained.model.rating_head,
        similar_queries=trained.model.similar_queries,
        version=version,
        top_k=config.top_k,
    )
    signatures = servable.signatures()
    save(servable, path, signatures)
    examples = servable.example_requests(dataset.user_ids[0], dataset.candidate_ids[0])
    name = contract.servable_name(config.model, index.index_name)
    write_warmup_records(path, name, examples, batchable_only=config.batching)
    write_self_test(
        path,
        signatures=signatures,
        example_requests=examples,
        probe=common.probe,
        candidate_ids=dataset.candidate_ids,
    )
    graph = inspect_saved_model(path)
    _check_target(config, index.index_name, graph.ops)
    curve = {index.index_name: [(point.latency_ms, point.recall) for point in recall.curve]}
    picture = recall_latency_svg(curve, title=f"{name}, {index.num_candidates} candidates")
    (path / contract.WARMUP_FILE).with_name(RECALL_PICTURE).write_text(picture, encoding="utf-8")
    manifest = build_manifest(
        config=config,
        dataset=dataset,
        index=index.index_name,
        version=version,
        index_parameters={**index.parameters(), "recall": recall.as_json()},
        exact=index.exact,
        top_k=servable.top_k,
        metrics=trained.metrics,
        signatures=signatures,
        graph=graph,
    )
    manifest["corpus"] = common.corpus_facts
    manifest["files"] = dict(checksums(path))
    write_manifest(path, manifest)


def _parameters_in_words(index: CandidateIndex) -> list[str]:
    parameters = index.parameters()
    return [f"{key} {value}" for key, value in parameters.items() if value is not None]


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
