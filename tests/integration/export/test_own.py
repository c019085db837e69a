"""Vectors and towers from elsewhere, published and asked over both transports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import pytest

from shortlist.clients import Filter, GrpcClient, RestClient, contract
from shortlist.export import OwnConfig, VectorTable, publish_model
from shortlist.export._tf import tf
from shortlist.export.config import IvfConfig
from shortlist.export.data.dataset import Attribute
from shortlist.export.evaluation.reference import buckets
from shortlist.export.own.publish import OwnResult
from shortlist.export.own.published import read_published, write_vectors
from shortlist.export.own.vectors import read_vectors
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.repository.version import Verdict, read_manifest
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer, all_available

pytestmark = pytest.mark.slow

_random = np.random.default_rng(3)
IDS = [f"c{number}" for number in range(150)]
CANDIDATES = _random.standard_normal((150, 6)).astype(np.float32)
YEARS = _random.integers(1990, 2000, 150)
GENRES = [["drama"] if number % 3 else ["comedy", "war"] for number in range(150)]
USERS = [f"u{number}" for number in range(40)]
QUERIES = _random.standard_normal((40, 6)).astype(np.float32)
AGES = _random.uniform(18, 80, 40).astype(np.float32)
K = 5


class Tower(tf.Module):
    """A query from a user id and an age, as a model from elsewhere might compute it."""

    def __init__(self) -> None:
        super().__init__()
        vocabulary = tf.lookup.KeyValueTensorInitializer(USERS, tf.range(40))
        self._rows = tf.lookup.StaticHashTable(vocabulary, default_value=0)
        self._users = tf.Variable(QUERIES)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None], tf.float32, name="age"),
        ]
    )
    def __call__(self, user_id: tf.Tensor, age: tf.Tensor) -> tf.Tensor:
        """Return a user's query, moved by the age."""
        return tf.gather(self._users, self._rows.lookup(user_id)) + age[:, None] / 100.0


def cosines(queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    candidates = CANDIDATES / np.linalg.norm(CANDIDATES, axis=1, keepdims=True)
    return (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ candidates.T


def distances(queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return -np.square(queries[:, None] - CANDIDATES[None]).sum(axis=2)


def best(scores: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_]) -> list[list[str]]:
    order = np.argsort(-np.where(allowed, scores, -np.inf), axis=1)[:, :K]
    return [[IDS[position] for position in row] for row in order.tolist()]


def vectors(rows: npt.NDArray[np.float32]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])


@dataclass(frozen=True, kw_only=True)
class Published:
    root: Path
    table: OwnResult
    tower: OwnResult

    def path(self, name: str) -> Path:
        return {**self.table.servables, **self.tower.servables}[name]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("own")
    candidates = {"candidate_id": IDS, "embedding": vectors(CANDIDATES)}
    files: Mapping[str, Mapping[str, Any]] = {
        "users": {"user_id": USERS, "embedding": vectors(QUERIES)},
        "candidates": {**candidates, "genre": GENRES, "year": YEARS, "title": IDS},
        "interactions": {"user_id": USERS, "candidate_id": [*IDS[:39], "gone"]},
    }
    for name, columns in files.items():
        pyarrow.parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
    all_leaves = IvfConfig(num_leaves=6, num_leaves_to_search=6)
    table = publish_model(
        folder / "users.parquet",
        folder / "candidates.parquet",
        folder / "models",
        config=OwnConfig(
            model="table", indexes=("ivf",), similarity="cosine", recall=None, ivf=all_leaves
        ),
        interactions=folder / "interactions.parquet",
    )
    attributes = {"year": Attribute(numbers=YEARS.astype(np.float64))}
    tower = publish_model(
        Tower(),
        VectorTable(ids=IDS, embeddings=CANDIDATES, attributes=attributes),
        folder / "models",
        config=OwnConfig(model="tower", indexes=("brute_force",), similarity="l2"),
        queries={"user_id": USERS, "age": AGES},
    )
    return Published(root=folder / "models", table=table, tower=tower)


@pytest.fixture(scope="module")
def clients(
    published: Published, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, GrpcClient | RestClient]]:
    folder = tmp_path_factory.mktemp("server")
    entries = {name: ModelEntry(versions=(1,)) for name in ("table_ivf", "tower_brute_force")}
    write_config(folder / "models.config", published.root, entries)
    options = ServerOptions(
        model_config_file=folder / "models.config",
        repository=published.root,
        grpc_port=claim_port(0, option="--port"),
        rest_port=claim_port(0, option="--rest-port"),
        log_file=folder / "server.log",
    )
    with (
        ModelServer(ServerKind.EMBEDDED, options, temporary=True) as server,
        GrpcClient(server.grpc_address) as grpc,
        RestClient(server.rest_address) as rest,
    ):
        server.wait_until(all_available(grpc, dict.fromkeys(entries, (1,))), timeout=120)
        yield {"grpc": grpc, "rest": rest}


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_table_is_asked_like_an_exported_model(
    clients: dict[str, GrpcClient | RestClient], transport: str
) -> None:
    expected = best(
        cosines(QUERIES[:2]), (YEARS >= 1995) & np.array(["drama" in own for own in GENRES])
    )
    client = clients[transport]
    condition = Filter(all={"genre": ["drama"]}, min={"year": 1995})
    answers = client.retrieve(USERS[:2], k=K, model="table_ivf", filter=condition)
    assert [list(answer.candidate_ids) for answer in answers] == expected
    assert [answer.known_user for answer in answers] == [True, True]
    (answer,) = client.retrieve(
        USERS[:1], k=K, model="table_ivf", filter=condition, exclude=expected[0][:2]
    )
    assert list(answer.candidate_ids)[: K - 2] == expected[0][2:]
    (unknown,) = client.retrieve(["nobody"], k=K, model="table_ivf")
    everything = np.ones(150, np.bool_)
    assert not unknown.known_user
    assert [list(unknown.candidate_ids)] == best(cosines(QUERIES.mean(axis=0)[None]), everything)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_tower_keeps_its_inputs_and_gets_exclusions_and_filters(
    clients: dict[str, GrpcClient | RestClient], transport: str
) -> None:
    queries = QUERIES[:2] + AGES[:2, None] / np.float32(100)
    expected = best(distances(queries), YEARS >= 1995)
    asked = {"user_id": USERS[:2], "age": AGES[:2].tolist()}
    nothing: list[str] = []
    inputs = {
        **asked,
        contract.K: K,
        contract.EXCLUDE: [[expected[0][0]], [""]],
        contract.EXCLUDE_SEEN: False,
        contract.FILTER_ANY: nothing,
        contract.FILTER_ALL: nothing,
        contract.FILTER_MIN: ["year=1995"],
        contract.FILTER_MAX: nothing,
    }
    client = clients[transport]
    answer = client.predict(inputs, signature=contract.RETRIEVE, model="tower_brute_force")
    rows = answer.outputs[contract.CANDIDATE_IDS]
    assert rows[0][: K - 1] == expected[0][1:]
    assert rows[1] == expected[1]
    assert contract.KNOWN_USER not in answer.outputs
    embedded = client.predict(asked, signature=contract.EMBED, model="tower_brute_force")
    np.testing.assert_allclose(
        embedded.outputs[contract.QUERY_EMBEDDING], queries, rtol=1e-5, atol=1e-6
    )
    (similar,) = client.similar(["c7"], k=K, model="tower_brute_force")
    others = np.arange(150) != 7
    assert [list(similar.candidate_ids)] == best(distances(CANDIDATES[7:8]), others)
    np.testing.assert_allclose(
        similar.scores, np.sort(distances(CANDIDATES[7:8])[0, others])[::-1][:K], rtol=1e-4
    )


def test_gates_and_report_tell_what_is_known(published: Published) -> None:
    for result in (published.table, published.tower):
        for gates in result.gates.values():
            skipped = {gate.gate for gate in gates if gate.verdict is Verdict.SKIPPED}
            assert skipped == {"quality", "latency"}
    scores = cosines(QUERIES[:39])
    ranks = (scores > scores[np.arange(39), np.arange(39)][:, None]).sum(axis=1)
    rates = published.table.metrics["seen_kept"]
    assert rates == {"hit_rate@10": (ranks < 10).mean(), "hit_rate@100": (ranks < 100).mean()}
    (folder,) = published.table.servables.values()
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.reference is not None
    assert manifest.reference.scores is not None
    expected = buckets(scores.max(axis=1)).edges
    assert manifest.reference.scores.edges == pytest.approx(expected, abs=1e-5)
    assert published.table.report is not None
    assert published.tower.report is not None
    with_rates = published.table.report.read_text(encoding="utf-8")
    without = published.tower.report.read_text(encoding="utf-8")
    assert "Measured on 39 interactions" in with_rates
    assert "Hit rate" not in without
    for page in (with_rates, without):
        assert "Published servables" in page
        assert "Sample queries" in page
        assert "Training" not in page


@pytest.mark.parametrize("name", ["table_ivf", "tower_brute_force"])
def test_vectors_come_back_out_of_a_version(
    published: Published, name: str, tmp_path: Path
) -> None:
    read = read_published(published.path(name))
    write_vectors(tmp_path / "v.parquet", read.candidates, id_column="candidate_id")
    write_vectors(tmp_path / "v.npz", read.candidates, id_column="candidate_id")
    lengths = np.linalg.norm(CANDIDATES, axis=1, keepdims=True)
    expected = CANDIDATES / lengths if read.similarity == "cosine" else CANDIDATES
    for file in (tmp_path / "v.parquet", tmp_path / "v.npz"):
        again = read_vectors(file, id_column="candidate_id")
        assert list(again.ids) == IDS
        np.testing.assert_allclose(again.embeddings, expected, rtol=1e-5, atol=1e-6)
        assert again.attributes["year"].numbers is not None
        assert again.attributes["year"].numbers.tolist() == YEARS.tolist()
        if name == "table_ivf":
            genres = again.attributes["genre"].values
            assert [sorted(own) for own in genres or ()] == GENRES
    if name == "table_ivf":
        users = read.users()
        assert list(users.ids) == USERS
        np.testing.assert_array_equal(users.embeddings, QUERIES)
    else:
        with pytest.raises(ValueError, match="has no list of its users"):
            read.users()
