"""Two processes train one model over loopback and end with the model of a single process."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from shortlist.export.config import ModelConfig, TrainConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.histories import Histories
from shortlist.export.data.split import make_split
from shortlist.export.progress import Progress
from shortlist.export.training.order import train_order
from shortlist.export.training.train import train
from shortlist.export.training.workers import Workers, alone, join_workers

RECIPES = {
    "users": TrainConfig(epochs=3, batch_size=16, learning_rate=0.03, sampled_candidates=50),
    "interactions": TrainConfig(
        loss="in_batch_softmax", optimizer="adagrad", epochs=3, batch_size=250, learning_rate=0.1
    ),
}
MODEL = ModelConfig(embedding_dim=8)

SCRIPT = """
import os, sys
import numpy as np
from shortlist.export.training.workers import join_workers
workers = join_workers(os.environ)
from shortlist.clients.cli.main import main
from shortlist.export.data import DataConfig, load
from shortlist.export.data.split import make_split
from shortlist.export.training.train import train
from tests.integration.export.training.test_workers import MODEL, RECIPES, order_candidates
data = load(DataConfig(source="sample", sample_users=60, sample_candidates=150,
                       sample_interactions=1500))
split = make_split(data, held_out_fraction=0.2, seed=1, validation_fraction=0.1)
results = {}
for name, config in RECIPES.items():
    model = train(data, split, MODEL, config, workers=workers)
    results[name] = model.candidate_embeddings
    results[name + " loss"] = [record.loss for record in model.records]
results["order"] = order_candidates(data, workers)
folder = sys.argv[1]
np.savez(folder + "/results.npz", **results)
# A process can join a cluster only once, so the command reuses these workers.
import shortlist.export.training.workers
shortlist.export.training.workers.join_workers = lambda environ: workers
sys.exit(main(["export", "--data", "sample", "--sample-users", "60", "--sample-candidates", "150",
               "--sample-interactions", "1500", "--preset", "tutorial", "--index", "brute_force",
               "--repository", folder + "/models"]))
"""


def order_candidates(
    dataset: Dataset, workers: Workers | None = None, *, epochs: int = 10
) -> npt.NDArray[np.float32]:
    """Candidate embeddings of a tower over the order of events, trained from random ones."""
    _, candidates = train_order(
        Histories.of_users(dataset, np.arange(dataset.num_interactions)),
        np.random.default_rng(1).normal(size=(len(dataset.candidate_ids), 8)).astype(np.float32),
        RECIPES["users"],
        dimension=8,
        epochs=epochs,
        progress=Progress(),
        phase="order",
        workers=workers,
    )
    return candidates


def free_ports(count: int) -> list[int]:
    """Free ports, because TF_CONFIG does not allow port 0."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def run_workers(commands: list[list[str]], *, timeout: float = 240.0) -> list[str]:
    """Runs one command per worker of a cluster; returns what each wrote to stderr."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(commands))]
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{index}.log" for index in range(len(commands))]
        try:
            for index, command in enumerate(commands):
                config = {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": index},
                }
                with logs[index].open("wb") as log:
                    processes.append(
                        subprocess.Popen(
                            [sys.executable, *command],
                            env={**os.environ, "TF_CONFIG": json.dumps(config)},
                            stdout=log,
                            stderr=subprocess.STDOUT,
                        )
                    )
            codes = [process.wait(timeout) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait(30)
        texts = [log.read_text(errors="replace") for log in logs]
    assert codes == [0] * len(commands), "\n".join(texts)
    return texts


@pytest.mark.slow
def test_two_workers_end_with_the_model_of_one_and_the_first_one_publishes(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    """Batches are the same, so only the order of additions differs."""
    folders = [tmp_path / name for name in ("chief", "other")]
    for folder in folders:
        folder.mkdir()
    texts = run_workers([["-c", SCRIPT, str(folder)] for folder in folders])
    first, second = (np.load(folder / "results.npz") for folder in folders)
    split = make_split(small_dataset, held_out_fraction=0.2, seed=1, validation_fraction=0.1)
    for name, config in RECIPES.items():
        single = train(small_dataset, split, MODEL, config)
        np.testing.assert_array_equal(first[name], second[name])
        losses = [record.loss for record in single.records]
        np.testing.assert_allclose(first[f"{name} loss"], losses, rtol=1e-4)
        np.testing.assert_allclose(first[name], single.candidate_embeddings, atol=2e-2)
    np.testing.assert_array_equal(first["order"], second["order"])
    single_order = order_candidates(small_dataset)
    assert np.abs(single_order - order_candidates(small_dataset, epochs=0)).max() > 0.01
    np.testing.assert_allclose(first["order"], single_order, atol=1e-3)
    assert "published version 1" in texts[0]
    assert (folders[0] / "models/retrieval_brute_force/1/saved_model.pb").is_file()
    assert "worker 1 of 2 is done" in texts[1]
    assert not (folders[1] / "models").exists()


def test_without_tf_config_a_process_is_alone() -> None:
    single = {"cluster": {"worker": ["h:1"]}, "task": {"type": "worker", "index": 0}}
    for environ in ({}, {"TF_CONFIG": ""}, {"TF_CONFIG": json.dumps(single)}):
        workers = join_workers(environ)
        assert workers.is_chief
        assert workers.count == 1
    assert alone().mean(0.25) == 0.25


CLUSTER = {"worker": ["h:1", "h:2"]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"TF_CONFIG is not JSON .*; set it to something like \{"),
        ([], 'has no "cluster"'),
        ({"task": {}}, 'has no "cluster"'),
        ({"cluster": {"ps": ["h:1"]}}, "names 'ps' in \"cluster\"; use"),
        ({"cluster": {"worker": "h:1"}}, 'must have a list of host:port under "worker"'),
        ({"cluster": {"worker": ["h"]}}, "must have a list of host:port"),
        ({"cluster": CLUSTER}, 'must say in "task" which process of the cluster'),
        (
            {"cluster": CLUSTER, "task": {"type": "chief", "index": 0}},
            "which process of",
        ),
        (
            {"cluster": CLUSTER, "task": {"type": "worker", "index": 2}},
            'must have an "index" of 0..1 in "task", got 2',
        ),
        ({"cluster": CLUSTER, "task": {"type": "worker"}}, "got None"),
        (
            {"cluster": {"worker": ["h:1", "h:1"]}, "task": {"type": "worker", "index": 0}},
            "names an address twice",
        ),
    ],
)
def test_broken_tf_config_is_reported_in_one_line(config: object, message: str) -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    with pytest.raises(ValueError, match=message) as error:
        join_workers({"TF_CONFIG": text})
    assert "\n" not in str(error.value)


def test_ratings_are_refused_under_several_workers(small_dataset: Dataset) -> None:
    import dataclasses

    from shortlist.export.training.in_batch_softmax import InBatchSteps

    config = dataclasses.replace(RECIPES["interactions"], rating_weight=1.0)
    two = dataclasses.replace(alone(), count=2)
    with pytest.raises(ValueError, match="rating_weight 1 needs one process, and TF"):
        InBatchSteps(small_dataset, np.arange(100), MODEL, config, two)
