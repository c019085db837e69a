"""Servables answer the same after saving, in a fresh process and from a server."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.clients import Filter, GrpcClient, RestClient, contract
from shortlist.clients.wire.messages import PredictionLog
from shortlist.export._tf import tf
from shortlist.export.data.dataset import Dataset
from shortlist.export.pipeline import ExportResult
from shortlist.export.servable.warmup import write_warmup_records
from shortlist.serving.repository.golden import read_golden
from shortlist.serving.repository.server_config import ModelEntry, write_config
from shortlist.serving.servers.kinds import ServerKind
from shortlist.serving.servers.options import ServerOptions, claim_port
from shortlist.serving.servers.runner import ModelServer, all_available
from tests.support.command import run_json
from tests.unit.clients.conftest import make_client

pytestmark = pytest.mark.slow

# Plain TensorFlow without this project, but with ScaNN's ops.
READER = """
import json, os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
from scann.scann_ops.py import scann_ops
def plain(value):
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value
answers = {}
for path in sys.argv[2:]:
    loaded = tf.saved_model.load(path)
    answers[path] = []
    for signature, inputs in json.loads(sys.argv[1]):
        function = loaded.signatures[signature]
        specs = function.structured_input_signature[1]
        tensors = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
        outputs = function(**tensors)
        rows = {key: plain(output.numpy().tolist()) for key, output in outputs.items()}
        answers[path].append(rows)
print(json.dumps(answers))
"""

KINDS = [
    ServerKind.EMBEDDED,
    pytest.param(
        ServerKind.BINARY,
        marks=pytest.mark.skipif(
            shutil.which("tensorflow_model_server") is None,
            reason="there is no tensorflow_model_server on PATH",
        ),
    ),
]
BATCHING = (
    "max_batch_size { value: 64 } batch_timeout_micros { value: 20000 } "
    "num_batch_threads { value: 2 } max_enqueued_batches { value: 1000 } "
    "allowed_batch_sizes: 1 allowed_batch_sizes: 8 allowed_batch_sizes: 64"
)

Requests = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server with every servable that it can load."""

    kind: ServerKind
    grpc: GrpcClient
    rest: RestClient
    grpc_address: str
    rest_address: str
    names: tuple[str, ...]

    def wrapped_runs(self) -> int:
        """Return the number of batches that the server has run."""
        return self._counted("batching_session:wrapped_run_count", "")

    def warm_up_records(self, path: Path) -> int:
        """Return the number of warm-up requests of a version that the server has run."""
        return self._counted(
            "model_warmup_records_read", f'model_path="{path.resolve()}",status="OK"'
        )

    def _counted(self, counter: str, labels: str) -> int:
        url = f"http://{self.rest_address}/monitoring/prometheus/metrics"
        with urllib.request.urlopen(url, timeout=30) as page:
            text = page.read().decode()
        line = rf"^:tensorflow:serving:{counter}{{{re.escape(labels)}}} (\d+)$"
        match = re.search(line, text, re.MULTILINE)
        return 0 if match is None else int(match.group(1))


@contextmanager
def serving(
    kind: ServerKind, versions: Mapping[str, Path], work: Path, *flags: str, timeout: float = 120.0
) -> Iterator[Running]:
    """Serves versions by name; a stock binary has no ops of ScaNN."""
    servables = {
        name: path
        for name, path in versions.items()
        if kind.scann_problem() is None or not name.endswith("scann")
    }
    config, monitoring = work / "models.config", work / "monitoring.config"
    root = next(iter(servables.values())).parent.parent
    write_config(config, root, dict.fromkeys(servables, ModelEntry()))
    monitoring.write_text(
        'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }'
    )
    options = ServerOptions(
        model_config_file=config,
        repository=work,
        grpc_port=claim_port(0, option=""),
        rest_port=claim_port(0, option=""),
        flags=(
            "--max_num_load_retries=0",
            "--grpc_max_threads=64",
            f"--monitoring_config_file={monitoring}",
            *flags,
        ),
        log_file=work / "server.log",
    )
    with (
        ModelServer(kind, options, temporary=True) as server,
        GrpcClient(server.grpc_address, timeout=60) as grpc,
        RestClient(server.rest_address, timeout=60) as rest,
    ):
        loaded = all_available(grpc, {name: [int(servables[name].name)] for name in servables})
        server.wait_until(loaded, timeout=timeout)
        yield Running(
            kind=kind,
            grpc=grpc,
            rest=rest,
            grpc_address=server.grpc_address,
            rest_address=server.rest_address,
            names=tuple(servables),
        )


@pytest.fixture(scope="module", params=KINDS)
def running(
    request: pytest.FixtureRequest,
    small_export: ExportResult,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    work = tmp_path_factory.mktemp("served")
    with serving(request.param, small_export.servables, work) as server:
        yield server


@pytest.fixture(scope="module")
def requests(small_export: ExportResult, small_dataset: Dataset) -> Requests:
    """Several requests per signature, filters included."""
    users = [*small_dataset.user_ids[:5], "nobody"]
    nothing: dict[str, Any] = {
        contract.FILTER_ANY: [],
        contract.FILTER_ALL: [],
        contract.FILTER_MIN: [],
        contract.FILTER_MAX: [],
    }
    plain = {contract.USER_ID: users, contract.K: 7, **nothing}
    exclude = [[candidate] for candidate in small_dataset.candidate_ids[:6]]
    first, second, *_ = small_dataset.candidate_ids
    query = {
        contract.USER_ID: [*users[:2], "", "", "nobody", "nobody"],
        contract.HISTORY: [
            *([first, second], ["", ""], [second, second], ["", ""], [first, "nothing"]),
            ["nothing", ""],
        ],
        contract.HISTORY_AGE: [[3600.0, 60.0], *[[-1.0, -1.0]] * 5],
        contract.HISTORY_WEIGHT: [[1.0, 2.0]] * 6,
        contract.FEATURES: [[""]] * 6,
    }
    by_query = {**plain, **query, contract.EXCLUDE: exclude, contract.EXCLUDE_SEEN: False}
    loaded = tf.saved_model.load(str(small_export.servables["retrieval_ivf"]))
    _, specs = loaded.signatures[contract.RETRIEVE_BY_EMBEDDING].structured_input_signature
    shape = 3, specs[contract.QUERY_EMBEDDING].shape[1]
    embeddings = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    similar = [*small_dataset.candidate_ids[:3], "nothing"]
    requests: Requests = [
        (contract.SERVING_DEFAULT, {contract.USER_ID: users}),
        (contract.SERVING_DEFAULT, {contract.USER_ID: users[:1]}),
        (contract.RETRIEVE, {**plain, contract.EXCLUDE: exclude, contract.EXCLUDE_SEEN: False}),
        (contract.RETRIEVE, {**plain, contract.EXCLUDE: exclude, contract.EXCLUDE_SEEN: True}),
        (
            contract.RETRIEVE,
            {
                **plain,
                contract.EXCLUDE: exclude,
                contract.EXCLUDE_SEEN: True,
                contract.FILTER_MIN: ["year=1990"],
            },
        ),
        (contract.RETRIEVE_BY_EMBEDDING, {contract.QUERY_EMBEDDING: embeddings.tolist()}),
        (contract.RETRIEVE_BY_QUERY, {**by_query, contract.EXCLUDE_HISTORY: True}),
        (contract.RETRIEVE_BY_QUERY, {**by_query, contract.EXCLUDE_HISTORY: False}),
        (contract.EMBED, {contract.USER_ID: users}),
        (contract.EMBED_BY_QUERY, query),
        (contract.SIMILAR, {contract.CANDIDATE_ID: similar}),
    ]
    assert {signature for signature, _ in requests} == set(loaded.signatures) - {contract.RATE}
    return requests


@pytest.fixture(scope="module")
def expected(small_export: ExportResult, requests: Requests) -> dict[str, list[dict[str, Any]]]:
    """Answers of plain TensorFlow in a fresh process, by servable."""
    paths = {str(path): name for name, path in small_export.servables.items()}
    process = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(requests), *paths],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return {paths[path]: answers for path, answers in json.loads(process.stdout).items()}


def check_equal(answer: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare ids and flags exactly, and scores up to TensorFlow's rounding in batches."""
    assert set(answer) == set(expected)
    for name, value in expected.items():
        if name in (contract.SCORES, contract.QUERY_EMBEDDING):
            np.testing.assert_allclose(answer[name], value, rtol=1e-5, atol=1e-6)
        else:
            assert answer[name] == value, name


def test_all_servables_answer_identically_in_a_fresh_process(
    expected: dict[str, list[dict[str, Any]]], requests: Requests, small_export: ExportResult
) -> None:
    """With all leaves searched, approximate indexes equal brute force."""
    exact = expected["retrieval_brute_force"]
    first = exact[0]
    assert first[contract.KNOWN_USER] == [True] * 5 + [False]
    assert first[contract.SERVABLE_VERSION] == [small_export.version] * 6
    for answers in expected.values():
        for answer, right in zip(answers, exact, strict=True):
            check_equal(answer, right)


def test_a_fresh_process_answers_as_the_exporting_one_did(
    expected: dict[str, list[dict[str, Any]]], small_export: ExportResult, small_dataset: Dataset
) -> None:
    """The known answers were computed before saving."""
    users = list(small_dataset.user_ids[:5])
    for name, path in small_export.servables.items():
        known = json.loads((path / contract.GOLDEN_FILE).read_text())["queries"][0]
        assert known["inputs"][contract.USER_ID] == users
        fresh = {key: value[:5] for key, value in expected[name][0].items()}
        check_equal(known["outputs"], fresh)


def test_every_version_is_warmed_up_before_it_is_available(
    running: Running, small_export: ExportResult
) -> None:
    """The first query builds ScaNN's searcher, so it must not be a user's."""
    for name in running.names:
        path = small_export.servables[name]
        assert contract.SERVING_DEFAULT in warm_up_signatures(path)
        assert running.warm_up_records(path) == len(requests_to_warm_up_with(path))


def test_a_server_answers_as_a_fresh_process_does(
    running: Running, requests: Requests, expected: dict[str, list[dict[str, Any]]]
) -> None:
    for name in running.names:
        for (signature, inputs), right in zip(requests, expected[name], strict=True):
            for client in (running.grpc, running.rest):
                answer = client.predict(inputs, signature=signature, model=name)
                check_equal(answer.outputs, right)


@pytest.mark.parametrize("transport", ["rest", "grpc", "aio"])
def test_unknown_users_get_lists_that_follow_from_their_histories(
    running: Running, small_dataset: Dataset, transport: str
) -> None:
    """All clients, all indexes."""
    address = running.rest_address if transport == "rest" else running.grpc_address
    liked, other = [small_dataset.candidate_ids[i] for i in (3, 70)]
    user = small_dataset.user_ids[0]
    with make_client(transport, address, timeout=60) as client:
        for name in running.names:
            ask = partial(client.retrieve, model=name, k=len(small_dataset.candidate_ids))
            (nobody,) = ask(["nobody"])
            none, one, both, known = ask(
                ["", "somebody", "", user],
                history=[[], [liked], [liked, "nothing", other], [liked]],
            )
            assert none.candidate_ids == nobody.candidate_ids
            assert none.scores == pytest.approx(nobody.scores, abs=1e-6)
            assert none.candidate_ids != one.candidate_ids != both.candidate_ids
            assert [row.known_history for row in (none, one, both, known)] == [0, 1, 2, 1]
            assert [row.known_user for row in (none, one, both, known)] == [False] * 3 + [True]
            assert {liked, other} & {*both.candidate_ids} == set()
            assert liked not in one.candidate_ids
            assert other in one.candidate_ids
            (kept,) = ask(history=[[liked]], exclude_history=False)
            assert liked in kept.candidate_ids
            assert [this for this in kept.candidate_ids if this != liked] == [*one.candidate_ids]
            assert known.candidate_ids != ask([user])[0].candidate_ids
            vectors = client.embed(history=[[liked], ["nothing"]], model=name)
            assert [row.known_history for row in vectors] == [1, 0]
            unknown = client.embed(["nobody"], model=name)[0].values
            assert vectors[1].values == pytest.approx(unknown)
            assert vectors[0].values != pytest.approx(unknown)


def test_a_history_is_left_out_with_what_else_is_excluded(
    running: Running, small_dataset: Dataset
) -> None:
    """Everything that a request may restrict, in one call."""
    user = small_dataset.user_ids[0]
    seen = {
        small_dataset.candidate_ids[candidate]
        for candidate in small_dataset.candidate_positions[small_dataset.user_positions == 0]
    }
    history, named = small_dataset.candidate_ids[5:8], small_dataset.candidate_ids[20]
    years = small_dataset.attributes["year"].numbers
    assert years is not None
    late = {
        candidate
        for candidate, year in zip(small_dataset.candidate_ids, years, strict=True)
        if year >= 1990
    }
    for name in running.names:
        (answer,) = running.rest.retrieve(
            [user],
            history=[history],
            exclude=[named],
            exclude_seen=True,
            filter=Filter(min={"year": 1990}),
            k=len(small_dataset.candidate_ids),
            model=name,
        )
        assert {*answer.candidate_ids} >= late - seen - {*history, named}
        assert {*answer.candidate_ids} <= late - {*history, named}


@pytest.mark.parametrize("transport", ["rest", "grpc", "aio"])
def test_ratings_are_those_that_the_export_computed_before_saving(
    running: Running, small_export: ExportResult, transport: str
) -> None:
    """Also for unknown users."""
    address = running.rest_address if transport == "rest" else running.grpc_address
    with make_client(transport, address, timeout=60) as client:
        for name in running.names:
            path = small_export.servables[name]
            (golden,) = (query for query in read_golden(path) if query.signature == contract.RATE)
            users, candidates = (
                golden.inputs[key] for key in (contract.USER_ID, contract.CANDIDATE_ID)
            )
            pairs = list(zip(users, candidates, strict=True))
            answer = client.rate(pairs, model=name)
            assert [(rating.user_id, rating.candidate_id) for rating in answer] == pairs
            assert [rating.version for rating in answer] == [1, 1]
            expected = golden.outputs[contract.RATING]
            assert [rating.rating for rating in answer] == pytest.approx(expected, abs=1e-5)


def test_the_command_predict_runs_the_rating_signature(running: Running) -> None:
    address = ("--transport", "grpc", "--address", running.grpc_address)
    answer = run_json(
        *("predict", "--signature", "rate", *address),
        *("--input", 'user_id=["1", "unknown"]', "--input", 'candidate_id=["no such", "no such"]'),
    )
    outputs = answer.get("outputs", answer)
    assert outputs["known_user"] == [True, False]
    assert outputs["known_candidate"] == [False, False]
    assert 0.5 <= outputs["rating"][0] <= 5
    assert outputs["rating"][0] != outputs["rating"][1]


def test_concurrent_users_get_their_own_rows_under_batching(
    running: Running, small_export: ExportResult, small_dataset: Dataset, tmp_path: Path
) -> None:
    """`--enable_batching` puts requests together and pads them to an allowed size."""
    users = list(small_dataset.user_ids[:40])
    alone = {name: [ask(running.grpc, name, [user]) for user in users] for name in running.names}
    copies = {}
    for name, path in small_export.servables.items():
        copies[name] = tmp_path / name / path.name
        shutil.copytree(path, copies[name])
        warm_up_for_batching(copies[name], name)
    parameters = tmp_path / "batching.config"
    parameters.write_text(BATCHING)
    flags = ("--enable_batching=true", f"--batching_parameters_file={parameters}")
    with (
        serving(running.kind, copies, tmp_path, *flags) as batched,
        ThreadPoolExecutor(16) as threads,
    ):
        for name in batched.names:
            before = batched.wrapped_runs()
            answers = threads.map(lambda user, name=name: ask(batched.grpc, name, [user]), users)
            for answer, right in zip(answers, alone[name], strict=True):
                check_equal(answer, right)
            assert batched.wrapped_runs() - before < len(users)
            for client in (batched.grpc, batched.rest):
                together = ask(client, name, users[:3])
                for row in range(3):
                    answer = {key: value[row : row + 1] for key, value in together.items()}
                    check_equal(answer, alone[name][row])


def warm_up_for_batching(path: Path, name: str) -> None:
    """Write the warm-up file again, as `shortlist export --batching` does.

    A real server also batches these records, and then a scalar k fails the load.
    """
    requests: dict[str, list[dict[str, Any]]] = {}
    for request in requests_to_warm_up_with(path):
        inputs = {
            key: tf.io.parse_tensor(value.SerializeToString(), value.dtype).numpy()
            for key, value in request.inputs.items()
        }
        requests.setdefault(request.model_spec.signature_name, []).append(inputs)
    write_warmup_records(path, name, requests, batchable_only=True)
    assert warm_up_signatures(path) == set(requests) - {
        contract.RETRIEVE,
        contract.RETRIEVE_BY_QUERY,
    }


def ask(client: GrpcClient | RestClient, name: str, users: list[str]) -> dict[str, Any]:
    answer = client.predict({contract.USER_ID: users}, model=name)
    return dict(answer.outputs)


def warm_up_signatures(path: Path) -> set[str]:
    """Return the signatures that a server runs while it loads a version."""
    return {request.model_spec.signature_name for request in requests_to_warm_up_with(path)}


def requests_to_warm_up_with(path: Path) -> list[Any]:
    records = tf.data.TFRecordDataset(str(path / contract.WARMUP_FILE))
    return [PredictionLog.FromString(record.numpy()).predict_log.request for record in records]
