"""The gate `quality` on published versions: the next day's data passes, a collapse does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shortlist.export.config import ExportConfig, ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.gates.publication import verify_version
from shortlist.export.gates.record import GateError
from shortlist.export.gates.settings import GateSettings
from shortlist.export.pipeline import ExportResult, publish_trained, run_export, train_and_judge
from shortlist.export.progress import Progress, StepTimer
from shortlist.serving.repository.version import GateResult, Verdict
from tests.support.clicks import make_clicks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_server_gates"),
]

NAME = "retrieval_brute_force"
CONFIG = ExportConfig(
    indexes=("brute_force",),
    recall=None,
    keep_seen=False,  # the gate excludes seen candidates by id
    # A query for each user: histories would find their own candidates also among shuffled ones.
    towers=ModelConfig(embedding_dim=16, candidate_features=False, query_tower="table"),
    train=TrainConfig(epochs=20, batch_size=32, split="random", protocol="seen_kept"),
)


def clicks(shown: int) -> Dataset:
    return make_clicks(num_users=120, num_candidates=60, total=5000, shown=shown)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def today(repository: Path) -> ExportResult:
    return run_export(clicks(2700), CONFIG, repository)


def quality(results: list[GateResult]) -> GateResult:
    (result,) = (result for result in results if result.gate == "quality")
    return result


def test_a_collapse_fails_and_the_next_day_passes(repository: Path, today: ExportResult) -> None:
    first = quality(list(today.gates[NAME]))
    assert first.verdict is Verdict.SKIPPED
    assert first.measured.startswith("no live version to compare with; hit_rate@10 (seen kept) 0.")

    data, timer = clicks(3000), StepTimer(Progress())
    trained = train_and_judge(data, CONFIG, timer=timer)
    rows = np.random.default_rng(1).permutation(trained.model.candidate_embeddings)
    shuffled = replace(trained, model=replace(trained.model, candidate_embeddings=rows))
    with pytest.raises(GateError, match="failed the gate 'quality': hit_rate@10") as error:
        publish_trained(shuffled, data, CONFIG, repository, timer=timer)
    verdicts = {result.gate: result.verdict for result in error.value.results[NAME]}
    assert [gate for gate, verdict in verdicts.items() if verdict is Verdict.FAILED] == ["quality"]

    published = publish_trained(trained, data, CONFIG, repository, timer=timer)
    passed = quality(list(published.gates[NAME]))
    assert passed.verdict is Verdict.PASSED, passed
    assert "(seen kept) 0." in passed.measured

    (verified,) = verify_version(published.servables[NAME], GateSettings()).values()
    assert quality(verified) == passed
