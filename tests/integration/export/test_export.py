"""The published servables, read as a server reads them."""

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import contract
from shortlist.clients.wire.messages import PredictionLog
from shortlist.export._tf import tf
from shortlist.export.config import ExportConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.pipeline import ExportResult, run_export
from shortlist.export.servable.saved_model import inspect_saved_model
from shortlist.serving.repository.golden import read_golden
from shortlist.serving.repository.version import checksums

pytestmark = pytest.mark.slow

DTYPES = {1: tf.float32, 3: tf.int32, 7: tf.string, 10: tf.bool}


@cache
def load(path: Path) -> Any:
    return tf.saved_model.load(str(path))


def test_brute_force_equals_numpy_on_the_exported_embeddings(
    small_export: ExportResult, small_dataset: Dataset
) -> None:
    loaded = load(small_export.servables["retrieval_brute_force"])
    users = tf.constant(small_dataset.user_ids[:8])
    queries = loaded.signatures["embed"](user_id=users)["query_embedding"].numpy()
    checkpoint = tf.train.load_checkpoint(
        str(small_export.servables["retrieval_brute_force"] / "variables" / "variables")
    )
    shapes = checkpoint.get_variable_to_shape_map()
    rows = [len(small_dataset.candidate_ids), queries.shape[1]]
    (candidates,) = (checkpoint.get_tensor(name) for name in shapes if shapes[name] == rows)
    scores = queries @ candidates.T
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    answer = loaded.signatures["serving_default"](user_id=users)
    expected = np.array(small_dataset.candidate_ids)[positions]
    np.testing.assert_array_equal(answer["candidate_ids"].numpy().astype(str), expected)
    np.testing.assert_allclose(
        answer["scores"].numpy(), np.take_along_axis(scores, positions, 1), rtol=1e-5
    )


def test_serving_default_has_known_names_types_and_shapes(small_export: ExportResult) -> None:
    for path in small_export.servables.values():
        signature = load(path).signatures[contract.SERVING_DEFAULT]
        outputs = signature.structured_outputs
        assert {name: (spec.dtype.name, list(spec.shape)) for name, spec in outputs.items()} == {
            "candidate_ids": ("string", [None, 20]),
            "scores": ("float32", [None, 20]),
            "known_user": ("bool", [None]),
            "servable_version": ("int64", [None]),
        }


def test_warmup_records_run(small_export: ExportResult) -> None:
    for name, path in small_export.servables.items():
        loaded = load(path)
        signatures = set()
        for record in tf.data.TFRecordDataset(str(path / contract.WARMUP_FILE)):
            request = PredictionLog.FromString(record.numpy()).predict_log.request
            assert request.model_spec.name == name
            inputs = {
                key: tf.io.parse_tensor(tensor.SerializeToString(), DTYPES[tensor.dtype])
                for key, tensor in request.inputs.items()
            }
            loaded.signatures[request.model_spec.signature_name](**inputs)
            signatures.add(request.model_spec.signature_name)
        assert signatures == set(loaded.signatures)


def test_manifest_records_what_was_done(
    small_export: ExportResult, small_config: ExportConfig, small_dataset: Dataset
) -> None:
    for name, path in small_export.servables.items():
        manifest = json.loads((path / contract.MANIFEST_FILE).read_text())
        assert manifest["servable"] == name
        assert manifest["version"] == small_export.version == int(path.name)
        assert manifest["config"] == json.loads(json.dumps(small_config.as_json(split="random")))
        assert manifest["metrics"] == small_export.metrics
        assert manifest["settings"].keys() >= {"decay", "user_share", "linear_weight"}
        assert manifest["dataset"]["candidates"] == len(small_dataset.candidate_ids)
        assert manifest["tensorflow_producer"] > 2000
        assert manifest["ops"] == list(inspect_saved_model(path).ops)
        foreign = [op for op in manifest["ops"] if ">" in op]
        expected = ["Scann>ScannSearchBatched", "Scann>TensorsToScann"]
        assert foreign == (expected if name.endswith("scann") else [])


def test_rate_is_warmed_up_and_answers_identically_in_all_indexes(
    small_export: ExportResult, small_dataset: Dataset
) -> None:
    users, candidates = small_dataset.user_ids[:6], small_dataset.candidate_ids[3:9]
    answers = []
    for path in small_export.servables.values():
        golden = [query for query in read_golden(path) if query.signature == contract.RATE]
        assert [len(query.outputs[contract.RATING]) for query in golden] == [2]
        rate = load(path).signatures[contract.RATE]
        assert {name: spec.dtype.name for name, spec in rate.structured_outputs.items()} == {
            "rating": "float32",
            "known_user": "bool",
            "known_candidate": "bool",
            "servable_version": "int64",
        }
        outputs = rate(user_id=tf.constant(users), candidate_id=tf.constant(candidates))
        answers.append(outputs[contract.RATING].numpy())
    assert len(answers) == 3
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], rtol=1e-6)
    quality = small_export.metrics["rating"]
    assert set(quality) == {"rmse", "baseline_rmse", "num_ratings"}


def test_every_servable_carries_the_report_and_its_checksum(small_export: ExportResult) -> None:
    pages = {name: path / contract.REPORT_FILE for name, path in small_export.servables.items()}
    assert small_export.report in pages.values()
    texts = {page.read_text(encoding="utf-8") for page in pages.values()}
    assert len(texts) == 1  # it describes all servables
    text = texts.pop()
    for name, path in small_export.servables.items():
        assert name in text
        manifest = json.loads((path / contract.MANIFEST_FILE).read_text())
        assert manifest["files"] == dict(checksums(path))
        assert manifest["gates"][0]["measured"] in text
    for protocol in ("seen_kept", "seen_excluded"):
        assert f"{small_export.metrics[protocol]['ndcg@10']:.4f}" in text


def test_next_export_gets_the_next_version_and_may_change_similar(
    small_export: ExportResult,
    small_dataset: Dataset,
    small_config: ExportConfig,
    tmp_path: Path,
) -> None:
    name = "retrieval_brute_force"
    shutil.copytree(small_export.servables[name], tmp_path / name / "1")
    train = dataclasses.replace(small_config.train, similar="co_interactions")
    config = dataclasses.replace(small_config, indexes=("brute_force",), train=train)
    export = run_export(small_dataset, config, tmp_path)
    assert export.version == 2
    assert sorted(p.name for p in (tmp_path / name).glob("[0-9]*")) == ["1", "2"]
    assert ["similar" in metrics for metrics in (small_export.metrics, export.metrics)] == [
        False,
        True,
    ]
    names = small_dataset.candidate_ids[:20]
    answers = []
    for version in (small_export.servables[name], export.servables[name]):
        similar = load(version).signatures[contract.SIMILAR]
        ids = similar(candidate_id=tf.constant(names))[contract.CANDIDATE_IDS].numpy().astype(str)
        assert all(name not in row for name, row in zip(names, ids, strict=True))
        answers.append(ids)
    assert (answers[0][:, 0] != answers[1][:, 0]).any()


@pytest.mark.slow
def test_a_corpus_of_two_candidates_is_exported_whole(tmp_path: Path) -> None:
    """Saving traces a Keras layer with its own default k of 10."""
    dataset = Dataset(
        name="tiny",
        user_ids=("1", "2", "3"),
        candidate_ids=("a", "b"),
        user_positions=np.array([0, 1, 2], np.int32),
        candidate_positions=np.array([0, 1, 0], np.int32),
        titles=("a", "b"),
    )
    config = ExportConfig(indexes=("brute_force",), train=TrainConfig(epochs=1))
    result = run_export(dataset, config, tmp_path)
    signature = load(result.servables["retrieval_brute_force"]).signatures["serving_default"]
    answer = signature(user_id=tf.constant(["1"]))["candidate_ids"].numpy()
    assert sorted(answer[0].tolist()) == [b"a", b"b"]
