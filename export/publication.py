"""The steps that publish a model through every index: index, tune, save, run the gates, report."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shortlist.clients import contract
from shortlist.export.config import ServableConfig
from shortlist.export.gates.publication import pass_gates
from shortlist.export.gates.record import summary
from shortlist.export.gates.settings import GateSettings
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.build import TunedIndex, build_tuned
from shortlist.export.index.previous import PreviousIndex
from shortlist.export.index.tuning import RecallReport, exact_positions
from shortlist.export.preflight import check_shards
from shortlist.export.progress import StepTimer
from shortlist.export.report.content import Report
from shortlist.export.report.figures import recall_picture
from shortlist.export.report.publication import store_report
from shortlist.export.servable.contents import ServableContents
from shortlist.export.servable.corpus_shard import CorpusShard, corpus_table
from shortlist.export.servable.writer import ServableWriter
from shortlist.serving.repository.local import ModelRepository, Publisher
from shortlist.serving.repository.version import GateResult, size_bytes

__all__ = [
    "RECALL_QUERIES",
    "GateResults",
    "PublishedServables",
    "Staged",
    "publish_servables",
]

RECALL_QUERIES = 500  # are enough to measure recall
_RECALL_K = 10  # of the recall that indexes are tuned to
_RECALL_PICTURE = "recall_latency.svg"  # in the folder of the manifest
# Seconds to wait for another export into the repository, which may index millions of
# candidates; a finished training should not be lost.
_LOCK_TIMEOUT = 3600.0

Staged: TypeAlias = Mapping[str, Path]
GateResults: TypeAlias = Mapping[str, Sequence[GateResult]]


@dataclass(frozen=True, kw_only=True)
class PublishedServables:
    """Published servables of one model.

    Attributes:
        version: Version number of all its servables.
        servables: Folder of the version by servable name.
        seconds: Duration of each step, in order.
        report: Report of the first servable (every servable has the same), or None if nothing
            was judged.
        gates: Gate results by servable name.
    """

    version: int
    servables: Staged
    seconds: Mapping[str, float]
    report: Path | None = None
    gates: GateResults = field(default_factory=dict)


def publish_servables(
    contents: ServableContents,
    queries: npt.NDArray[np.float32],
    config: ServableConfig,
    repository_root: Path,
    *,
    timer: StepTimer,
    gates: GateSettings | None = None,
    report: Callable[[Staged, GateResults], Report] | None = None,
    previous: Mapping[str, PreviousIndex] | None = None,
) -> PublishedServables:
    """Publish a model through every configured index.

    Indexes are built, tuned, saved and released one after the other, shard by shard, so that a
    large corpus needs memory for its largest index only. Servers see nothing before all
    servables are complete.

    Args:
        contents: What the servables have in common.
        queries: `[num_queries, r]` queries of the index that measure recall.
        config: Indexes and their settings.
        repository_root: Model repository, created if missing.
        timer: Times the steps.
        gates: Limits of the gates, or None for the defaults.
        report: Makes the report from the staged folders and the gate results; None to make none.
        previous: Indexes of the corpus before by kind, with the positions of this corpus; new
            candidates are placed in their leaves. Not used for shards, which divide a changed
            corpus in another way.

    Raises:
        GateError: A gate failed; nothing was published.
        RepositoryError: The repository is not writable, or another export holds its lock.
        ValueError: An index misses the recall, there are more shards than candidates, or the
            target server lacks an op.
    """
    check_shards(config.shards, len(contents.candidate_ids))
    repository = ModelRepository(repository_root)
    table = None if config.shards == 1 else corpus_table(contents.index_rows)
    with repository.publisher(config.names(), lock_timeout=_LOCK_TIMEOUT) as publisher:
        for shard in config.parts():
            corpus = None if shard is None else CorpusShard(shard, table)
            writer = ServableWriter(contents, config, corpus)
            made_from = previous if shard is None else None
            _stage(writer, queries, config, publisher, timer, made_from or {})
        del table, writer
        staged = {name: publisher.staged(name) for name in config.names()}
        with timer.step("gates") as measures:
            results = pass_gates(publisher, list(staged), repository, gates or GateSettings())
            measures.append(summary(results))
        if report is not None:
            with timer.step("report") as measures:
                size = store_report(staged, report(staged, results))
                measures.append(f"{size / 1e3:.0f} kB")
        with timer.step("publish") as measures:
            servables = publisher.publish()
            measures.append(f"version {publisher.version} of {', '.join(servables)}")
    return PublishedServables(
        version=publisher.version,
        servables=servables,
        seconds=timer.seconds,
        report=next(iter(servables.values())) / contract.REPORT_FILE if report else None,
        gates=results,
    )


def _stage(
    writer: ServableWriter,
    queries: npt.NDArray[np.float32],
    config: ServableConfig,
    publisher: Publisher,
    timer: StepTimer,
    previous: Mapping[str, PreviousIndex],
) -> None:
    """Build, tune and stage every index over the candidates of a writer."""
    exact = exact_positions(queries, writer.index_rows, _RECALL_K)
    where = "" if writer.shard is None else f", {writer.shard}"
    for kind in config.indexes:
        with timer.step(f"index {kind}{where}") as measures:
            tuned = build_tuned(
                kind,
                writer.index_rows,
                writer.candidate_ids,
                config.index_config(kind),
                queries=queries,
                exact=exact,
                target=config.recall,
                previous=previous.get(kind),
            )
            index, recall = tuned.index, tuned.recall
            measures += _index_measures(tuned)
        with timer.step(f"save {kind}{where}") as measures:
            name = config.name(kind, writer.shard)
            path = publisher.stage(name)
            _write_picture(path, name, index, recall)
            writer.write(path, publisher.version, index, recall)
            measures.append(f"{size_bytes(path) / 1e6:.1f} MB")
        index.release()
        del index, tuned
        gc.collect()  # traced functions and their variables refer to each other


def _index_measures(tuned: TunedIndex) -> list[str]:
    recall, parameters = tuned.recall, tuned.index.parameters().items()
    return [
        f"{tuned.index.num_candidates} candidates",
        *([] if tuned.origin is None else [tuned.origin]),
        f"recall@{recall.k} {recall.chosen.recall:.3f}",
        *(f"{name} {value}" for name, value in parameters if value is not None),
    ]


def _write_picture(path: Path, name: str, index: CandidateIndex, recall: RecallReport) -> None:
    curve = {index.index_name: [(point.latency_ms, point.recall) for point in recall.curve]}
    picture = recall_picture(curve, title=f"{name}, {index.num_candidates} candidates")
    file = (path / contract.MANIFEST_FILE).with_name(_RECALL_PICTURE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(picture, encoding="utf-8")
