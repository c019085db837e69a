"""A real server with exported servables: the embedded one, unless the environment names another.

SHORTLIST_SERVER_COMMAND  command line of another server, such as 'tensorflow_model_server {flags}'
SHORTLIST_SERVER          'REST,GRPC' addresses of a running server; only tests that need nothing
                          but SHORTLIST_SERVER_MODEL (retrieval_brute_force) then run
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shortlist.clients import GrpcClient, contract
from shortlist.serving.servers.options import claim_port
from tests.support.once import made_once
from tests.support.recorded import MODELS
from tests.unit.clients.conftest import KINDS, make_client
from tests.unit.clients.toys import ToyServer

if TYPE_CHECKING:
    from shortlist.export.pipeline import ExportResult

# Indexes as notebooks of TFRS save them, next to the exported servables.
PLAIN = """
import sys

from shortlist.export import _tf  # before TensorFlow: Keras 2

import tensorflow as tf
import tensorflow_recommenders as tfrs

USERS, DIM = [str(number) for number in range(1, 20)], 4
tf.random.set_seed(1)

def save(name, lookup, query, ids, k):
    tower = tf.keras.Sequential([lookup, tf.keras.layers.Embedding(len(USERS) + 1, DIM)])
    index = tfrs.layers.factorized_top_k.BruteForce(tower, k=k)
    index.index(tf.random.normal([30, DIM]), ids)
    index(query)
    tf.saved_model.save(index, f"{sys.argv[1]}/{name}/1")

titles = tf.constant([f"Movie {number} (19{number:02d})" for number in range(30)])
strings = tf.keras.layers.StringLookup(vocabulary=USERS)
save("plain", strings, tf.constant(["1"]), titles, 10)
numbers = tf.keras.layers.IntegerLookup(vocabulary=list(map(int, USERS)))
save("plain_numbers", numbers, tf.constant([1], tf.int64), tf.range(30, dtype=tf.int64) + 1000, 5)
"""


@dataclass(frozen=True, kw_only=True)
class Live:
    """A running server."""

    rest: str
    grpc: str
    model: str
    own: bool  # started by the tests, with labels stable=1 and canary=2, and half_plus_two
    top_k: int | None = None
    corpus: int | None = None

    def address(self, transport: str) -> str:
        return self.rest if transport == "rest" else self.grpc


def _model_config(repository: Path) -> str:
    entries = []
    for folder in sorted(repository.glob("[a-z]*")):
        labels = ""
        if (folder / "2").exists():
            labels = "".join(
                f'version_labels {{ key: "{label}" value: {version} }} '
                for label, version in (("stable", 1), ("canary", 2))
            )
        entries.append(
            f'config {{ name: "{folder.name}" base_path: "{folder}" model_platform: "tensorflow" '
            f"model_version_policy {{ all {{}} }} {labels}}}"
        )
    return f"model_config_list {{ {' '.join(entries)} }}"


@pytest.fixture(scope="session")
def repository(small_export: "ExportResult", tmp_path_factory: pytest.TempPathFactory) -> Path:
    def fill(root: Path) -> Path:
        done = subprocess.run(
            [sys.executable, "-c", PLAIN, str(root)],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        for name in ("retrieval_brute_force", "retrieval_scann"):
            shutil.copytree(small_export.servables[name], root / name / "1")
        brute_force = root / "retrieval_brute_force"
        shutil.copytree(brute_force / "1", brute_force / "2")
        for name in ("half_plus_two", "dtypes"):
            shutil.copytree(MODELS / name, root / name)
        return root

    return made_once(tmp_path_factory, "repository", fill)


@pytest.fixture(scope="session")
def live(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    addresses = os.environ.get("SHORTLIST_SERVER")
    if addresses:
        rest, grpc = addresses.split(",")
        model = os.environ.get("SHORTLIST_SERVER_MODEL", "retrieval_brute_force")
        yield Live(rest=rest, grpc=grpc, model=model, own=False)
        return
    repository: Path = request.getfixturevalue("repository")
    yield from started(repository, tmp_path_factory.mktemp("server"))


def started(repository: Path, work: Path, *more: str) -> Iterator[Live]:
    command = (
        os.environ.get("SHORTLIST_SERVER_COMMAND")
        or f"{sys.executable} -m shortlist.serving.embedded {{flags}}"
    )
    ports = claim_port(0, option=""), claim_port(0, option="")
    (work / "models.config").write_text(_model_config(repository))
    flags = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", "--grpc_max_threads=32"]
    flags += [f"--model_config_file={work}/models.config", *more]
    flags += ["--allow_version_labels_for_unavailable_models=true"]
    words = shlex.split(command.replace("{flags}", shlex.join(flags)))
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = f"127.0.0.1:{ports[0]}"
        with GrpcClient(address) as client:
            deadline = time.monotonic() + 120
            while True:
                try:
                    client.wait_until_available(timeout=2)
                    break
                except Exception:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise AssertionError((work / "log").read_text(errors="replace")) from None
        yield Live(
            rest=f"127.0.0.1:{ports[1]}",
            grpc=address,
            model=contract.servable_name(contract.DEFAULT_MODEL, "brute_force"),
            own=True,
            top_k=20,
            corpus=150,
        )
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def own(live: Live) -> Live:
    """The server, if the tests started it."""
    if not live.own:
        pytest.skip("needs labels and servables of the tests' own; unset SHORTLIST_SERVER")
    return live


@pytest.fixture
def real(live: Live, transport: str) -> Iterator[Any]:
    """A client of each kind for the server."""
    with make_client(transport, live.address(transport), model=live.model, timeout=60) as client:
        yield client


@pytest.fixture
def oracle(live: Live) -> Iterator[GrpcClient]:
    """A client to compare the others with."""
    with GrpcClient(live.grpc, model=live.model, timeout=60) as client:
        yield client


@pytest.fixture(params=KINDS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server() -> Iterator[ToyServer]:
    with ToyServer() as fake:
        yield fake
