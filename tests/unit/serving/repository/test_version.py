"""Manifests of every published form are read and written without loss."""

import json
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients import contract
from shortlist.clients.interface import RetrievalInterface
from shortlist.serving.errors import RepositoryError
from shortlist.serving.repository.version import (
    CorpusFacts,
    DatasetFacts,
    GateResult,
    Manifest,
    Verdict,
    checksums,
    find_custom_ops,
    read_manifest,
    write_manifest,
)

FIRST = {  # the first release's, without checksums, corpus and gates
    "format": 1,
    "model": "retrieval",
    "servable": "retrieval_ivf",
    "version": 3,
    "created": "2026-01-02T03:04:05+00:00",
    "dataset": {"name": "sample", "users": 20, "candidates": 10, "interactions": 90},
    "index": {"kind": "ivf", "exact": False, "num_leaves": 4},
    "top_k": 10,
    "metrics": {"hit_rate@10": 0.1},
    "config": {"model": "retrieval", "train": {"seed": 1}},
    "signatures": {"serving_default": {"inputs": {"user_id": "string [?]"}, "outputs": {}}},
    "packages": {"tensorflow": "2.19.1"},
    "tensorflow_producer": 2288,
    "tensorflow_min_consumer": 12,
    "ops": ["MatMul", "TopKV2"],
}
GATE = {"gate": "golden", "verdict": "passed", "measured": "all", "required": "all"}
COMPLETE = FIRST | {
    "corpus": {"non_finite": 0, "zero_norm": 1},
    "reference": {
        "scores": {"edges": [0.5, 1.25], "counts": [3, 4, 5]},
        "histories": None,
        "unknown_users": 0.25,
    },
    "settings": {"decay": 0.8, "order_weight": 2.0},
    "files": {"saved_model.pb": "0" * 64},
    "gates": [GATE],
}
FOREIGN = {"format": 1, "servable": "ranker", "version": 1, "files": {}, "gates": [GATE]}

INTERFACE = {
    "signature": "recommend",
    "query": "user",
    "ids": "movies",
    "scores": "scores",
    "others": ["age"],
}


def store(path: Path, values: Any) -> Path:
    file = path / contract.MANIFEST_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    return file


@pytest.mark.parametrize(
    "values",
    [
        FIRST,
        COMPLETE,
        COMPLETE | {"corpus": {"non_finite": 0, "zero_norm": 0}},
        FOREIGN,
        COMPLETE | {"parent": 2, "signed_by": ["a", "b"]},
        FOREIGN | {"interface": INTERFACE},
    ],
)
def test_a_manifest_comes_back_as_it_was(tmp_path: Path, values: dict[str, Any]) -> None:
    """Entries of a newer exporter, such as `signed_by`, survive publishing a copy."""
    file = store(tmp_path, values)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    write_manifest(tmp_path, manifest)
    assert json.loads(file.read_text()) == values


def test_its_parts_are_typed(tmp_path: Path) -> None:
    store(tmp_path, COMPLETE)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.parent is None
    assert manifest.dataset == DatasetFacts(name="sample", users=20, candidates=10, interactions=90)
    assert manifest.corpus == CorpusFacts(zero_norm=1)
    assert manifest.ops == ("MatMul", "TopKV2")
    assert manifest.gates == (
        GateResult(gate="golden", verdict=Verdict.PASSED, measured="all", required="all"),
    )


def test_a_verdict_of_a_newer_release_is_kept(tmp_path: Path) -> None:
    store(tmp_path, {"gates": [GATE | {"verdict": "postponed", "seconds": 3}]})
    assert (read_manifest(tmp_path) or Manifest()).gates[0].verdict == "postponed"


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (
            {"headline": {"metric": "hit_rate@10", "protocol": "seen_kept", "value": 0.25}},
            "hit_rate@10 (seen kept) 0.2500",
        ),
        ({"seen_excluded": {"hit_rate@10": 0.1772}}, "hit_rate@10 (seen excluded) 0.1772"),
        ({"seen_excluded": {}}, "None"),
        ({"headline": ["odd"]}, "None"),
        ({}, "None"),
    ],
)
def test_the_headline_names_its_protocol(metrics: dict[str, Any], expected: str) -> None:
    assert str(Manifest(metrics=metrics).headline) == expected


def test_a_version_without_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", "valid JSON .*; publish the model again"),
        ([], "not hold a JSON object"),
        ({"version": "three"}, "version must be a JSON int, got 'three'"),
        ({"dataset": {"name": "sample"}}, "not a manifest: .*missing 3 required"),
        ({"gates": [1]}, "not a manifest"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path: Path, values: Any, message: str) -> None:
    store(tmp_path, values)
    with pytest.raises(RepositoryError, match=rf"shortlist_manifest\.json .*{message}"):
        read_manifest(tmp_path)


def test_checksums_leave_the_manifest_out(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    before = checksums(tmp_path)
    write_manifest(tmp_path, Manifest(files=before))
    assert list(before) == ["saved_model.pb"]
    assert checksums(tmp_path) == before


def test_ops_with_a_namespace_are_custom() -> None:
    assert find_custom_ops(["TopKV2", "Scann>B", "Addons>A"]) == ("Addons>A", "Scann>B")


@pytest.mark.parametrize(
    ("values", "exported", "interface"),
    [
        (FIRST, True, RetrievalInterface()),
        (FIRST | {"interface": {"query": "user"}}, True, RetrievalInterface(query="user")),
        (FOREIGN, False, None),
        (
            FOREIGN | {"interface": INTERFACE | {"new": 1}},
            False,
            RetrievalInterface(signature="recommend", query="user", ids="movies", others=("age",)),
        ),
    ],
)
def test_the_tensors_that_retrieve_are_known(
    tmp_path: Path, values: dict[str, Any], exported: bool, interface: RetrievalInterface | None
) -> None:
    store(tmp_path, values)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert (manifest.exported, manifest.retrieval) == (exported, interface)
