"""Write versions: SavedModel, warm-up records, self-test and manifest."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.clients import contract
from shortlist.export.config import ServableConfig
from shortlist.export.index.base import CandidateIndex
from shortlist.export.index.tuning import RecallReport
from shortlist.export.servable.contents import ServableContents, describe
from shortlist.export.servable.corpus_shard import CorpusShard
from shortlist.export.servable.filters import CandidateFilter
from shortlist.export.servable.saved_model import inspect_saved_model, save
from shortlist.export.servable.self_test import write_self_test
from shortlist.export.servable.signatures import RetrievalServable
from shortlist.export.servable.target import check_target
from shortlist.export.servable.warmup import write_warmup_records
from shortlist.serving.repository.probe import write_descriptions
from shortlist.serving.repository.version import DriftReference, checksums, write_manifest

__all__ = ["ServableWriter"]


class ServableWriter:
    """Writes one model as servables, one per index, and computes only once what they share.

    Attributes:
        shard: The shard that its servables hold; None if they hold the whole corpus.
        candidate_ids: `[m]`, those that they hold.
        index_rows: Float32 `[m, r]`, rows to index.
    """

    def __init__(
        self,
        contents: ServableContents,
        config: ServableConfig,
        corpus: CorpusShard | None = None,
    ) -> None:
        """Prepare for servables of the whole corpus, or of a shard."""
        self._contents, self._config, self._corpus = contents, config, corpus
        self.shard = None if corpus is None else corpus.shard
        own = slice(None) if self.shard is None else self.shard.positions
        self.candidate_ids = contents.candidate_ids[own]
        self.index_rows = np.ascontiguousarray(contents.index_rows[own])
        attributes = {name: values.take(own) for name, values in contents.attributes.items()}
        self._filter = CandidateFilter(attributes, len(self.candidate_ids))

    def write(self, path: Path, version: int, index: CandidateIndex, recall: RecallReport) -> None:
        """Write one version; files that `path` already holds become part of it.

        Args:
            path: Existing folder.
            version: Number that its answers carry.
            index: Index over `index_rows`.
            recall: Its recall, for the manifest.

        Raises:
            ValueError: The target server lacks an op.
        """
        config, contents = self._config, self._contents
        embed = index.embeddings if self._corpus is None else self._corpus.embeddings
        servable = RetrievalServable(
            askers=contents.askers(embed),
            index=index,
            candidate_ids=contents.candidate_ids,
            candidate_filter=self._filter,
            corpus=self._corpus,
            similarity=contents.similarity,
            rating_head=contents.rating_head,
            similar_queries=contents.similar_queries,
            taste_dimension=contents.taste_dimension,
            version=version,
            top_k=config.top_k,
        )
        signatures = servable.signatures()
        save(servable, path, signatures)
        name = config.name(index.index_name, self.shard)
        graph = inspect_saved_model(path)
        check_target(config.target, name, graph.ops)
        first = {key: rows[:1] for key, rows in contents.asked.items()}
        examples = servable.example_requests(first, contents.candidate_ids[0])
        write_warmup_records(path, name, examples, batchable_only=config.batching)
        write_self_test(
            path,
            signatures=signatures,
            example_requests=examples,
            asked=contents.asked,
            probe=contents.probe.probe(self.index_rows, self.candidate_ids),
            sample=contents.sample,
            candidate_ids=contents.candidate_ids,
        )
        ids, titles, attributes = contents.candidate_ids, contents.titles, contents.attributes
        if attributes or (titles is not None and tuple(titles) != tuple(ids)):
            write_descriptions(path, list(attributes), describe(ids, titles, attributes))
        _write_structure(path, servable)
        if contents.training_state is not None:
            _link_files(contents.training_state, path / contract.TRAINING_FOLDER)
        manifest = replace(
            contents.manifest,
            servable=name,
            version=version,
            shard=self.shard,
            reference=self._reference(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            index={
                "kind": index.index_name,
                "exact": index.exact,
                **index.parameters(),
                "recall": recall.as_json(),
            },
            top_k=servable.top_k,
            signatures={key: _describe(function) for key, function in signatures.items()},
            tensorflow_producer=graph.tensorflow_producer,
            tensorflow_min_consumer=graph.tensorflow_min_consumer,
            ops=graph.ops,
            files=checksums(path),
        )
        write_manifest(path, manifest)

    def _reference(self) -> DriftReference | None:
        """Return what to measure drift from; the lists of a shard have other scores."""
        reference = self._contents.manifest.reference
        return reference and (reference if self.shard is None else replace(reference, scores=None))


def _write_structure(path: Path, servable: RetrievalServable) -> None:
    """Write what a version made from this one needs to know, if there can be one."""
    structure = servable.structure()
    if structure is not None:
        text = json.dumps(structure, ensure_ascii=False, allow_nan=False)
        (path / contract.TOWERS_FILE).write_text(text, encoding="utf-8")


def _link_files(source: Path, folder: Path) -> None:
    """Make files part of a version, without a copy if all servables are on one file system."""
    if not source.is_dir():
        return
    folder.mkdir(parents=True)
    for file in source.iterdir():
        try:
            (folder / file.name).hardlink_to(file)
        except OSError:
            shutil.copyfile(file, folder / file.name)


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
