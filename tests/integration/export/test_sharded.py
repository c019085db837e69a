"""A sharded model: published, served, and asked over both transports and the command line."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from shortlist.clients import Filter, ShardedClient
from shortlist.clients.cli.main import main
from shortlist.export import OwnConfig, VectorTable, publish_model
from shortlist.export.config import IvfConfig
from shortlist.export.data.dataset import Attribute
from shortlist.export.own.published import read_published
from shortlist.serving.repository.version import Shard, read_manifest
from shortlist.serving.servers.serve import ServeRequest, running

pytestmark = pytest.mark.slow

SHARDS, SIZE, K = 2, 121, 7
_random = np.random.default_rng(5)
IDS = [f"c{number}" for number in range(SIZE)]
CANDIDATES = _random.standard_normal((SIZE, 6)).astype(np.float32)
YEARS = _random.integers(1990, 2000, SIZE).astype(np.float64)
USERS = [f"u{number}" for number in range(30)]
QUERIES = _random.standard_normal((30, 6)).astype(np.float32)
NAMES = [f"retrieval_ivf_{number}of{SHARDS}" for number in range(SHARDS)]


@dataclass(frozen=True, kw_only=True)
class Served:
    root: Path
    grpc: str
    rest: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("sharded") / "models"
    result = publish_model(
        VectorTable(ids=USERS, embeddings=QUERIES),
        VectorTable(ids=IDS, embeddings=CANDIDATES, attributes={"year": Attribute(numbers=YEARS)}),
        root,
        config=OwnConfig(
            indexes=("ivf",),
            shards=SHARDS,
            recall=None,
            ivf=IvfConfig(num_leaves=4, num_leaves_to_search=4),
        ),
    )
    assert sorted(result.servables) == NAMES
    with ExitStack() as stack:
        server, _ = stack.enter_context(running(ServeRequest(repository=root)))
        yield Served(root=root, grpc=server.grpc_address, rest=server.rest_address)


def best(query: np.ndarray, allowed: np.ndarray, k: int = K) -> list[str]:
    order = np.argsort(-np.where(allowed, CANDIDATES @ query, -np.inf), kind="stable")
    return [IDS[position] for position in order[: min(k, int(allowed.sum()))].tolist()]


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_merged_answers_are_those_of_brute_force(
    served: Served, transport: Literal["grpc", "rest"]
) -> None:
    everything, recent = np.ones(SIZE, np.bool_), YEARS >= 1996
    address = served.grpc if transport == "grpc" else served.rest
    client = ShardedClient.from_addresses(
        [address], shards=SHARDS, transport=transport, model="retrieval_ivf"
    )
    with client:
        answers = client.retrieve(USERS, k=K)
        for query, answer in zip(QUERIES, answers, strict=True):
            assert list(answer.candidate_ids) == best(query, everything)
            assert (answer.version, answer.known_user, answer.shards_missing) == (1, True, ())
        gone = best(QUERIES[0], recent, 3)
        (answer,) = client.retrieve(
            USERS[:1], k=50, filter=Filter(min={"year": 1996}), exclude=gone
        )
        assert list(answer.candidate_ids) == best(QUERIES[0], recent, 50)[3:]
        for position, similar in enumerate(client.similar(IDS[:4], k=K)):
            others = np.arange(SIZE) != position
            assert list(similar.candidate_ids) == best(CANDIDATES[position], others)
        (vector,) = client.embed(USERS[3:4])
        np.testing.assert_array_equal(np.array(vector.values, np.float32), QUERIES[3])
        assert client.status().available == [1]


def test_a_shard_says_which_it_is_and_holds_its_own_vectors(served: Served) -> None:
    for number, name in enumerate(NAMES):
        manifest = read_manifest(served.root / name / "1")
        assert manifest is not None
        assert manifest.shard == Shard(number=number, count=SHARDS)
        assert (manifest.servable, manifest.model) == (name, "retrieval")
        table = read_published(served.root / name / "1").candidates
        assert list(table.ids) == IDS[number::SHARDS]
        np.testing.assert_array_equal(table.embeddings, CANDIDATES[number::SHARDS])


def test_the_command_line_asks_all_shards(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["--index", "ivf", "--address", served.rest, "--shards", str(SHARDS)]

    def asked(*arguments: str) -> Any:
        assert main(["query", *arguments, *target, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    (answer,) = asked("u4", "-k", "5")
    found = [candidate["candidate_id"] for candidate in answer["candidates"]]
    assert found == best(QUERIES[4], np.ones(SIZE, np.bool_), 5)
    assert answer["shards_missing"] == []
    assert main(["query", "u4", *target[:-1], "3"]) == 1
    assert "shard 0 of 3 (retrieval_ivf_0of3): no servable" in capsys.readouterr().err
