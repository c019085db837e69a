"""Versions judged with histories in the requests."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from shortlist.export.config import ExportConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.evaluation.published import PublishedVersion, evaluate_version, split_of
from shortlist.export.pipeline import run_export

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_server_gates")]


@pytest.mark.parametrize("weighted", [False, True])
def test_answers_to_requests_with_histories_have_the_metrics_of_the_manifest(
    small_dataset: Dataset, small_config: ExportConfig, tmp_path: Path, weighted: bool
) -> None:
    if weighted:
        weights = 10.0 ** (np.arange(small_dataset.num_interactions) % 3 == 0)
        small_dataset = dataclasses.replace(small_dataset, weights=weights.astype(np.float32))
    train = dataclasses.replace(small_config.train, split="global_time", rating_weight=0.0)
    config = dataclasses.replace(small_config, indexes=("brute_force",), train=train)
    result = run_export(small_dataset, config, tmp_path)
    version = PublishedVersion(result.servables["retrieval_brute_force"])
    split = split_of(version, small_dataset)
    answers = evaluate_version(version, small_dataset, split).as_json("seen_excluded")
    stored = version.manifest.metrics
    assert answers["held_out"] == stored["held_out"]
    assert answers["headline"]["as_served"]
    assert stored["held_out"]["weighted"] == weighted
    reference = version.manifest.reference
    assert reference is not None
    for counted in (reference.scores, reference.histories):
        assert counted is not None
        assert sum(counted.counts) == stored["held_out"]["interactions"]
    assert reference.unknown_users is not None
    for name in ("seen_excluded", "seen_kept"):
        # The servable does not know how long before a request the last kept event was, and ages
        # are float32; so a few lists may differ.
        assert answers[name] == pytest.approx(stored[name], rel=0.05, abs=0.02)
    (quality,) = [gate for gate in result.gates["retrieval_brute_force"] if gate.gate == "quality"]
    assert "hit_rate@10 (seen excluded, as served)" in quality.measured
