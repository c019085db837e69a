"""Versions judged with histories in the requests."""

import dataclasses
import json
from pathlib import Path

import pytest

from shortlist.export.config import ExportConfig, SplitMethod
from shortlist.export.data.dataset import Dataset
from shortlist.export.evaluation.published import PublishedVersion, evaluate_version, split_of
from shortlist.export.pipeline import run_export

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", ["global_time", "new_users"])
def test_answers_to_requests_with_histories_have_the_metrics_of_the_manifest(
    small_dataset: Dataset, small_config: ExportConfig, tmp_path: Path, method: SplitMethod
) -> None:
    train = dataclasses.replace(small_config.train, split=method, rating_weight=0.0)
    config = dataclasses.replace(small_config, indexes=("brute_force",), train=train)
    result = run_export(small_dataset, config, tmp_path)
    version = PublishedVersion(result.servables["retrieval_brute_force"])
    split = split_of(version, small_dataset)
    answers = evaluate_version(version, small_dataset, split).as_json("seen_excluded")
    for name in ("headline", "held_out", "activity", "seen_excluded", "seen_kept"):
        expected = json.loads(json.dumps(version.manifest.metrics[name]))
        if name == "headline":
            expected["interval"] = None  # resampled by the export alone
        assert json.loads(json.dumps(answers[name])) == expected
    assert answers["headline"]["as_served"]
    (quality,) = [gate for gate in result.gates["retrieval_brute_force"] if gate.gate == "quality"]
    assert "hit_rate@10 (seen excluded, as served)" in quality.measured
