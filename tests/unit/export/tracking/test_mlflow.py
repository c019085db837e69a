"""MLflow, with its own database in a file."""

from pathlib import Path

import pytest

from shortlist.clients import contract
from shortlist.export.tracking.tracker import Published, TrackingError, open_tracker
from shortlist.serving.repository.version import DatasetFacts, Manifest, write_manifest

pytestmark = [
    pytest.mark.slow,  # MLflow needs seconds to be imported and to create its tables
    pytest.mark.filterwarnings("ignore"),  # SQLAlchemy warns of MLflow's own code
]

EPOCHS = (
    {"epoch": 1, "loss": 3.0, "validation": None},
    {"epoch": 2, "loss": 2.0, "validation": 0.25},
)


def published(root: Path, name: str, version: int) -> Published:
    path = root / name / str(version)
    path.mkdir(parents=True)
    manifest = Manifest(
        model="retrieval",
        servable=name,
        version=version,
        created="2026-11-01T10:00:00+00:00",
        dataset=DatasetFacts(name="sample", users=3, candidates=4, interactions=9),
        metrics={"seen_excluded": {"hit_rate@10": 0.5}, "activity": [{"fewest": 1}]},
        index={"kind": "ivf", "recall": {"chosen": {"recall": 0.96}}},
        config={"train": {"epochs": 2}, **{f"key {number}": "x" for number in range(150)}},
        epochs=EPOCHS,
    )
    write_manifest(path, manifest)
    (path / contract.REPORT_FILE).write_text("<p>report</p>")
    return Published(name=name, version=version, path=path, manifest=manifest)


def test_mlflow_gets_runs_versions_and_aliases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracker = open_tracker("mlflow:shop")
    import mlflow

    first, second = (published(tmp_path / "models", "retrieval_ivf", n) for n in (1, 2))
    exact = published(tmp_path / "models", "retrieval_brute_force", 1)
    assert not tracker.known("retrieval_ivf")
    tracker.log([first, exact])
    tracker.log([second])
    assert set(tracker.known("retrieval_ivf")) == {first.fingerprint, second.fingerprint}

    client = mlflow.MlflowClient()
    shop = client.get_experiment_by_name("shop")
    assert shop is not None
    runs = {run.info.run_name: run for run in client.search_runs([shop.experiment_id])}
    assert set(runs) == {"retrieval 1", "retrieval 2"}
    run = runs["retrieval 1"]
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "2"
    assert len(run.data.params) > 150
    assert run.data.metrics["seen_excluded.hit_rate_at_10"] == 0.5
    assert run.data.metrics["recall.retrieval_ivf"] == 0.96
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in losses] == [(1, 3.0), (2, 2.0)]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"report.html", "retrieval_ivf", "retrieval_brute_force"}

    labels = {"stable": second.fingerprint, "previous": first.fingerprint, "canary": None}
    assert set(tracker.label("retrieval_ivf", labels)) == {"stable", "previous"}
    assert not tracker.label("retrieval_ivf", labels)
    stable = client.get_model_version_by_alias("retrieval_ivf", "stable")
    assert stable.tags["shortlist.version"] == "2"
    assert stable.tags["shortlist.path"] == str(second.path)
    assert set(tracker.label("retrieval_ivf", {**labels, "previous": None})) == {"previous"}
    assert set(client.get_registered_model("retrieval_ivf").aliases) == {"stable"}
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        tracker.label("retrieval_ivf", {"latest": first.fingerprint})  # MLflow's own alias
