"""Creates the report of an export and stores it in every staged version."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import Split
from shortlist.export.evaluation.judge import Judged
from shortlist.export.report.content import IndexFacts, Report, data_facts
from shortlist.export.report.render import render
from shortlist.export.report.samples import sample_users
from shortlist.export.servable.contents import package_versions
from shortlist.export.towers.trained import TrainedModel
from shortlist.serving.repository.version import (
    GateResult,
    Manifest,
    checksum,
    read_manifest,
    size_bytes,
    write_manifest,
)

__all__ = ["evaluation_report", "export_report", "index_facts", "store_report", "write_report"]


def export_report(
    staged: Mapping[str, Path],
    gates: Mapping[str, Sequence[GateResult]],
    *,
    dataset: Dataset,
    split: Split,
    model: TrainedModel,
    judged: Sequence[Judged],
    config: ExportConfig,
) -> Report:
    """Return the report of an export that is about to be published.

    Args:
        staged: Folder of each servable's version, with its manifest; at least one.
        gates: Results of the gates by servable.
        dataset: Data set of the training.
        split: Split of the data set.
        model: Trained towers.
        judged: Metrics of the model, then of the baselines.
        config: Configuration of the export.
    """
    manifests = {name: read_manifest(path) or Manifest() for name, path in staged.items()}
    first = next(iter(manifests.values()))
    return Report(
        model=config.model,
        version=first.version,
        created=first.created or "",
        judged=judged,
        indexes=[index_facts(manifests[name], path) for name, path in staged.items()],
        gates=gates,
        config=first.config,
        packages=first.packages,
        **_of_training(dataset, split, model, config),
    )


def evaluation_report(
    *,
    dataset: Dataset,
    split: Split,
    model: TrainedModel,
    judged: Sequence[Judged],
    config: ExportConfig,
) -> Report:
    """Return the report of a training that is not published, without indexes and gates.

    The first of `judged` names the report.
    """
    values = config.as_json(split=split.method)
    settings = {name: value for name, value in values.items() if name in ("towers", "train")}
    return Report(
        model=judged[0].name,
        version=None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        judged=[replace(judged[0], name="this model"), *judged[1:]],
        config=settings,
        packages=package_versions(),
        **_of_training(dataset, split, model, config),
    )


def _of_training(
    dataset: Dataset, split: Split, model: TrainedModel, config: ExportConfig
) -> dict[str, Any]:
    """Fields of both kinds of report."""
    candidates = model.candidate_embeddings.T
    return {
        "data": data_facts(dataset, split, seed=config.train.seed),
        "protocol": config.train.protocol,
        "features": tuple(model.features),
        "settings": model.settings,
        "epochs": model.epochs,
        "records": model.records,
        "samples": sample_users(
            dataset,
            split,
            lambda users, histories: model.embed(users, histories) @ candidates,
            protocol=config.train.protocol,
            seed=config.train.seed,
        ),
    }


def index_facts(manifest: Manifest, path: Path) -> IndexFacts:
    """Return the index facts of a version's manifest, and its size on disk."""
    index = manifest.index
    recall = index["recall"]
    chosen = recall["chosen"]
    return IndexFacts(
        servable=manifest.servable or "",
        kind=index["kind"],
        exact=index["exact"],
        k=recall["k"],
        num_queries=recall["num_queries"],
        target=recall["target"],
        recall=chosen["recall"],
        latency_ms=chosen["latency_ms"],
        curve=[(point["latency_ms"], point["recall"]) for point in recall["curve"]],
        parameters={
            name: value for name, value in index.items() if name not in ("kind", "exact", "recall")
        },
        size_bytes=size_bytes(path),
    )


def store_report(staged: Mapping[str, Path], report: Report) -> int:
    """Store the report in every version, with its checksum in the manifest.

    Called after the gates, because the report contains their results.

    Returns:
        Size of the report in bytes.
    """
    size = 0
    for path in staged.values():
        file = path / contract.REPORT_FILE
        size = write_report(file, report)
        manifest = read_manifest(path) or Manifest()
        files = {**(manifest.files or {}), contract.REPORT_FILE: checksum(file)}
        write_manifest(path, replace(manifest, files=dict(sorted(files.items()))))
    return size


def write_report(file: Path, report: Report) -> int:
    """Write a report and return its size in bytes."""
    return file.write_bytes(render(report).encode("utf-8", "replace"))
