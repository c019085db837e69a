"""Write versions: SavedModel, warm-up records, self-test and manifest."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.clients import contract
from shortlist.export._tf import tf
from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.fingerprint import dataset_facts
from shortlist.export.data.split import Split
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.tuning import RecallReport
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.saved_model import inspect_saved_model, save
from shortlist.export.servable.self_test import (
    corpus_facts,
    make_probe,
    sample_users,
    write_self_test,
)
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.servable.target import check_target
from shortlist.export.servable.warmup import write_warmup_records
from shortlist.export.towers.trained import TrainedModel
from shortlist.serving.repository.version import (
    Manifest,
    checksums,
    write_manifest,
)

__all__ = ["ServableWriter", "package_versions"]

_PACKAGES = ("shortlist", "tf-keras", "tensorflow-recommenders", "scann", "numpy")


class ServableWriter:
    """Writes one model as servables, one per index, and computes only once what they share."""

    def __init__(
        self,
        model: TrainedModel,
        dataset: Dataset,
        split: Split,
        config: ExportConfig,
        *,
        metrics: Mapping[str, Any],
    ) -> None:
        self._model, self._dataset, self._config = model, dataset, config
        self._metrics = metrics
        self._filter = CandidateFilter(dataset.attributes, len(dataset.candidate_ids))
        self._query_tower = model.query_tower
        if not config.keep_seen:
            queries = model.embed_users(np.arange(len(dataset.user_ids)))
            self._query_tower = model.query_tower.without_events(dataset.user_ids, queries)
        self._probe = make_probe(model, dataset, seed=config.train.seed)
        self._sample = sample_users(dataset, split)
        self._corpus_facts = corpus_facts(model.candidate_embeddings)
        self._dataset_facts = dataset_facts(dataset)
        self._config_facts = config.as_json(split=split.method)

    def write(self, path: Path, version: int, index: CandidateIndex, recall: RecallReport) -> None:
        """Write one version; files that `path` already holds become part of it.

        Args:
            path: Existing folder.
            version: Number that its answers carry.
            index: Index over the model's candidates.
            recall: Its recall, for the manifest.

        Raises:
            ValueError: The target server lacks an op.
        """
        config, dataset = self._config, self._dataset
        servable = RetrievalServable(
            query_tower=self._query_tower,
            index=index,
            candidate_ids=dataset.candidate_ids,
            candidate_filter=self._filter,
            rating_head=self._model.rating_head,
            similar_queries=self._model.similar_queries,
            taste_dimension=self._model.taste_dimension,
            version=version,
            top_k=config.top_k,
        )
        signatures = servable.signatures()
        save(servable, path, signatures)
        name = contract.servable_name(config.model, index.index_name)
        graph = inspect_saved_model(path)
        check_target(config.target, name, graph.ops)
        examples = servable.example_requests(dataset.user_ids[0], dataset.candidate_ids[0])
        write_warmup_records(path, name, examples, batchable_only=config.batching)
        write_self_test(
            path,
            signatures=signatures,
            example_requests=examples,
            probe=self._probe,
            sample=self._sample,
            candidate_ids=dataset.candidate_ids,
        )
        manifest = Manifest(
            model=config.model,
            servable=name,
            version=version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dataset=self._dataset_facts,
            index={
                "kind": index.index_name,
                "exact": index.exact,
                **index.parameters(),
                "recall": recall.as_json(),
            },
            top_k=servable.top_k,
            metrics=self._metrics,
            config=self._config_facts,
            signatures={key: _describe(function) for key, function in signatures.items()},
            features=self._model.features,
            settings=self._model.settings,
            packages=package_versions(),
            tensorflow_producer=graph.tensorflow_producer,
            tensorflow_min_consumer=graph.tensorflow_min_consumer,
            ops=graph.ops,
            corpus=self._corpus_facts,
            files=checksums(path),
        )
        write_manifest(path, manifest)


def package_versions() -> dict[str, str]:
    """Return versions of the packages that affect an export."""
    versions = {"tensorflow": tf.__version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # ScaNN is optional
            versions[name] = package_version(name)
    return versions


def _describe(function: Any) -> dict[str, dict[str, str]]:
    """Return inputs and outputs of a signature as `dtype [shape]`."""
    inputs = {spec.name: spec for spec in function.structured_input_signature[0]}
    return {
        "inputs": {name: _spec(spec) for name, spec in inputs.items()},
        "outputs": {name: _spec(spec) for name, spec in function.structured_outputs.items()},
    }


def _spec(spec: Any) -> str:
    if spec.shape.rank is None:
        return f"{spec.dtype.name} ?"
    sizes = ", ".join("?" if size is None else str(size) for size in spec.shape.as_list())
    return f"{spec.dtype.name} [{sizes}]"
