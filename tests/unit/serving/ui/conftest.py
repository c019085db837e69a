"""The page of a fake server and a small repository whose ids and titles are hostile text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shortlist.clients import GrpcClient, contract
from shortlist.clients.testing import FakeModel, FakeServer
from shortlist.clients.types import State
from shortlist.serving.repository.local import ModelRepository
from shortlist.serving.repository.probe import (
    Description,
    SampledUser,
    UserSample,
    write_corpus,
    write_descriptions,
    write_user_sample,
)
from shortlist.serving.repository.server_config import CONFIG_FILE, ModelEntry, write_config
from shortlist.serving.repository.version import (
    DatasetFacts,
    GateResult,
    Manifest,
    Verdict,
    write_manifest,
)
from shortlist.serving.rollout.replica import ReplicaClient
from shortlist.serving.ui.app import create_app
from shortlist.serving.ui.site import Site

MODELS = ("retrieval_brute_force", "retrieval_ivf")
HOSTILE = '<script>alert("x")</script>'
IDS = ("c00", "c01", "c02", "c03", "c04", HOSTILE, "七人の侍")


def version(path: Path, model: str, number: int) -> None:
    folder = path / model / str(number)
    (folder / "assets.extra").mkdir(parents=True)
    (folder / contract.REPORT_FILE).write_text("<!doctype html><title>the report</title>")
    write_corpus(folder, IDS)
    write_descriptions(
        folder,
        ["genre", "year"],
        [
            Description(
                title=f"Film <b>{index}</b>" if index < 2 else "",
                attributes={"genre": ["odd" if index % 2 else "even"], "year": 1990 + index},
            )
            for index in range(len(IDS))
        ],
    )
    fitted = ((1, 1_500_000_000), (5, 1_500_100_000))
    users = {"7": SampledUser(fitted=fitted, held_out=((3, 1_500_200_000),))}
    write_user_sample(folder, UserSample(bound=2**64, users=users | {"12": SampledUser()}))
    headline = {"metric": "hit_rate@10", "protocol": "seen_excluded", "value": 0.1 + number / 100}
    write_manifest(
        folder,
        Manifest(
            model="retrieval",
            servable=model,
            version=number,
            created="2026-01-02T03:04:05+00:00",
            dataset=DatasetFacts(name="sample", users=60, candidates=7, interactions=1461),
            config={"keep_seen": number == 2},
            index={"kind": model.removeprefix("retrieval_"), "exact": True},
            metrics={"headline": headline, "seen_excluded": {"hit_rate@10": 0.11, "ndcg@10": 0.05}},
            gates=(
                GateResult(gate="golden", verdict=Verdict.PASSED, measured="9 of 9", required="9"),
                GateResult(gate="quality", verdict=Verdict.ALLOWED, measured="0.1", required="0.2"),
            ),
        ),
    )


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    root = tmp_path / "models"
    for model in MODELS:
        for number in (1, 2):
            version(root, model, number)
    (root / CONFIG_FILE).parent.mkdir()
    entry = ModelEntry(versions=(1, 2), labels={"stable": 1, "canary": 2})
    write_config(root / CONFIG_FILE, root, dict.fromkeys(MODELS, entry))
    return ModelRepository(root)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    candidates = {
        name: {"genre": "odd" if index % 2 else "even", "year": 1990 + index}
        for index, name in enumerate(IDS)
    }
    models = {
        name: FakeModel(
            candidates=candidates,
            versions={1: State.AVAILABLE, 2: State.AVAILABLE},
            labels={"stable": 1, "canary": 2},
            unknown_users=["newcomer"],
        )
        for name in MODELS
    }
    with FakeServer(models) as running:
        yield running


@pytest.fixture
def site(server: FakeServer, repository: ModelRepository) -> Iterator[Site]:
    with (
        GrpcClient(server.grpc_address, timeout=2) as client,
        ReplicaClient(server.grpc_address, timeout=2) as replica,
    ):
        yield Site(client=client, servers=[replica], repository=repository)


@pytest.fixture
def page(site: Site) -> TestClient:
    return TestClient(create_app(site), base_url="http://127.0.0.1:8503")
