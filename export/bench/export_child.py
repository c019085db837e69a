"""Exports synthetic vectors by the code of `shortlist export`, in a process of its own.

`python -m shortlist.export.bench.export_child` reads its order as JSON on stdin and writes times
and memory as JSON on stdout.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.clients.cli import output
from shortlist.clients.cli.interrupts import interruptible
from shortlist.export._tf import tf
from shortlist.export.bench.index_child import query_tower
from shortlist.export.bench.machine import PeakMemory
from shortlist.export.bench.synthetic import CANDIDATE_SEED, QUERY_SEED, make_vectors
from shortlist.export.config import ExportConfig, IvfConfig
from shortlist.export.data.dataset import Dataset
from shortlist.export.data.split import make_split
from shortlist.export.gates.settings import GateSettings
from shortlist.export.pipeline import Trained, publish_trained
from shortlist.export.progress import Progress, StepTimer
from shortlist.export.towers.trained import TrainedModel

__all__ = ["NUM_USERS", "main"]

NUM_USERS = 1000
_INTERACTIONS = 10  # per user


class _Steps(Progress):
    """Reports steps to `PeakMemory` and on stderr."""

    def __init__(self, memory: PeakMemory) -> None:
        self._memory = memory

    def step_started(self, step: str) -> None:
        self._memory.step(step)

    def step_finished(self, step: str, measure: str, seconds: float) -> None:
        self._memory.step("between steps")
        output.progress(output.step(step, seconds, measure))


def main() -> int:
    """Run the export that stdin describes."""
    order = json.load(sys.stdin)
    if order["threads"] is not None:
        tf.config.threading.set_intra_op_parallelism_threads(order["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(order["threads"])
    with PeakMemory() as memory:
        timer = StepTimer(_Steps(memory))
        with timer.step("vectors"):
            dataset, trained = _untrained(order)
        config = ExportConfig(
            model=order["model"],
            indexes=tuple(order["indexes"]),
            recall=order["recall"],
            keep_seen=True,
            ivf=IvfConfig(row_type=order["row_type"]),
        )
        settings = GateSettings(load_timeout=order["timeout"])
        result = publish_trained(
            trained, dataset, config, Path(order["repository"]), timer=timer, gates=settings
        )
    answer = {
        "paths": {name: str(path) for name, path in result.servables.items()},
        "seconds": dict(result.seconds),
        "peak_bytes": memory.peaks,
    }
    json.dump(answer, sys.stdout)
    return 0


def _untrained(order: dict[str, Any]) -> tuple[Dataset, Trained]:
    """A data set and the outcome of its training, with synthetic vectors."""
    count, dimension, kind = order["size"], order["dimension"], order["vectors"]
    random = np.random.default_rng(QUERY_SEED)
    users = tuple(str(i) for i in range(NUM_USERS))
    ids = tuple(str(i) for i in range(count))
    dataset = Dataset(
        name=f"{count} {kind} vectors",
        user_ids=users,
        candidate_ids=ids,
        user_positions=np.repeat(np.arange(NUM_USERS, dtype=np.int32), _INTERACTIONS),
        candidate_positions=random.integers(0, count, NUM_USERS * _INTERACTIONS, np.int32),
        titles=ids,
    )
    queries = make_vectors(kind, NUM_USERS, dimension, seed=QUERY_SEED)
    model = TrainedModel(
        query_tower=query_tower(queries, count),
        candidate_embeddings=make_vectors(kind, count, dimension, seed=CANDIDATE_SEED),
        taste_dimension=dimension,
        epochs=0,
        records=(),
    )
    split = make_split(dataset, held_out_fraction=0.2, seed=QUERY_SEED)
    return dataset, Trained(model=model, metrics={}, split=split)


if __name__ == "__main__":
    # On SIGTERM servers stop and temporary folders are removed.
    with interruptible():
        sys.exit(main())
