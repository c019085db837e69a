"""The manifest of an exported servable."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from typing import Any

from shortlist.clients import contract
from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.servable.saved_model import GraphFacts
from shortlist.serving.repository.version import CorpusFacts, DatasetFacts, Manifest

__all__ = ["build_manifest", "package_versions"]

_PACKAGES = ("shortlist", "tensorflow", "tf-keras", "tensorflow-recommenders", "scann", "numpy")


def build_manifest(
    *,
    config: ExportConfig,
    dataset: Dataset,
    index: str,
    version: int,
    index_parameters: Mapping[str, Any],
    exact: bool,
    top_k: int,
    metrics: Mapping[str, Any],
    signatures: Mapping[str, Any],
    graph: GraphFacts,
    corpus: CorpusFacts,
    files: Mapping[str, str],
) -> Manifest:
    """Return the manifest of one servable."""
    return Manifest(
        model=config.model,
        servable=contract.servable_name(config.model, index),
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=DatasetFacts(
            name=dataset.name,
            users=len(dataset.user_ids),
            candidates=len(dataset.candidate_ids),
            interactions=dataset.num_interactions,
        ),
        index={"kind": index, "exact": exact, **index_parameters},
        top_k=top_k,
        metrics=metrics,
        config=config.as_json(),
        signatures={name: _describe(function) for name, function in signatures.items()},
        packages=package_versions(),
        tensorflow_producer=graph.tensorflow_producer,
        tensorflow_min_consumer=graph.tensorflow_min_consumer,
        ops=graph.ops,
        corpus=corpus,
        files=files,
    )


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what comes out."""
    return {name: package_version(name) for name in _PACKAGES}


def _describe(function: Any) -> dict[str, dict[str, str]]:
    """Inputs and outputs of a signature as `dtype [shape]`."""
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
