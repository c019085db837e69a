"""What every published version says of itself."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from shortlist.clients import contract
from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.servable.saved_model import GraphFacts

__all__ = ["MANIFEST_FORMAT", "build_manifest", "package_versions", "write_manifest"]

MANIFEST_FORMAT = 1  # raised when a reader of older manifests could misread the new ones

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
) -> dict[str, Any]:
    """The manifest of one servable, in values that JSON knows."""
    return {
        "format": MANIFEST_FORMAT,
        "model": config.model,
        "servable": contract.servable_name(config.model, index),
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": {
            "name": dataset.name,
            "users": len(dataset.user_ids),
            "candidates": len(dataset.candidate_ids),
            "interactions": dataset.num_interactions,
        },
        "index": {"kind": index, "exact": exact, **index_parameters},
        "top_k": top_k,
        "metrics": dict(metrics),
        "config": config.as_json(),
        "signatures": {name: _describe(function) for name, function in signatures.items()},
        "packages": package_versions(),
        "tensorflow_producer": graph.tensorflow_producer,
        "tensorflow_min_consumer": graph.tensorflow_min_consumer,
        "ops": list(graph.ops),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what comes out."""
    return {name: package_version(name) for name in _PACKAGES}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest into a version's folder, where the server ignores it."""
    file = path / contract.MANIFEST_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    file.write_text(f"{text}\n", encoding="utf-8")


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
