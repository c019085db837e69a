"""Processes that train one model together, as described by TensorFlow's TF_CONFIG."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shortlist.export._tf import tf

__all__ = ["Workers", "alone", "join_workers"]

TF_CONFIG = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes of one training, seen from one of them.

    Attributes:
        strategy: `tf.distribute` strategy that creates variables and runs steps.
        index: Index of this process, from 0; process 0 is the chief.
        count: Number of processes.
    """

    strategy: Any
    index: int
    count: int

    @property
    def is_chief(self) -> bool:
        """Return whether this process writes checkpoints and publishes."""
        return self.index == 0

    def sum(self, value: tf.Tensor) -> tf.Tensor:
        """Sum of the values of all processes, inside a step that `strategy` runs."""
        if self.count == 1:
            return value
        # Function arguments have no device, and the sum is placed on the device of the value.
        value = tf.identity(value)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    def mean(self, value: float) -> float:
        """Mean of the values of all processes, the same number in each of them."""
        if self.count == 1:
            return value
        return float(_total(self)(tf.constant(value, tf.float64))) / self.count

    def agree(self, value: float) -> bool:
        """Return whether all processes have the same value."""
        return self.mean(value * value) == self.mean(value) ** 2


@functools.cache  # traced once
def _total(workers: Workers) -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.float64)])
    def total(part: tf.Tensor) -> tf.Tensor:
        return workers.strategy.run(workers.sum, args=(part,))

    return total


def alone() -> Workers:
    """Return the workers of a training in this process alone."""
    return Workers(strategy=tf.distribute.get_strategy(), index=0, count=1)


def join_workers(environ: Mapping[str, str]) -> Workers:
    """Join the processes named in TF_CONFIG, with MultiWorkerMirroredStrategy.

    Waits for the other processes. Call it before any other TensorFlow operation.

    Args:
        environ: Environment variables; without TF_CONFIG, this process trains alone.

    Raises:
        ValueError: TF_CONFIG is malformed.
    """
    text = environ.get(TF_CONFIG, "")
    if not text:
        return alone()
    index, count = _place(text)
    if count == 1:
        return alone()
    return Workers(strategy=tf.distribute.MultiWorkerMirroredStrategy(), index=index, count=count)


def _place(text: str) -> tuple[int, int]:
    """Index of this process, the chief first, and number of processes."""
    try:
        config = json.loads(text)
    except json.JSONDecodeError as exc:
        raise _malformed(f"is not JSON ({exc})") from exc
    if not isinstance(config, dict) or not isinstance(config.get("cluster"), dict):
        raise _malformed('has no "cluster" with the addresses of the workers')
    cluster, task = config["cluster"], config.get("task")
    for kind, addresses in cluster.items():
        if kind not in ("chief", "worker"):
            raise _malformed(f'names {kind!r} in "cluster"; use "worker" or "chief"')
        if not isinstance(addresses, list) or not all(
            isinstance(address, str) and address.rpartition(":")[2].isdigit()
            for address in addresses
        ):
            raise _malformed(f'must have a list of host:port under "{kind}", got {addresses!r}')
    if not isinstance(task, dict) or task.get("type") not in cluster:
        raise _malformed(f'must say in "task" which process of the cluster this is, got {task!r}')
    chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
    if len(set(chiefs + workers)) < len(chiefs + workers) or len(chiefs) > 1:
        raise _malformed("names an address twice, or more than one chief")
    index, own = task.get("index"), cluster[task["type"]]
    if type(index) is not int or not 0 <= index < len(own):
        raise _malformed(f'must have an "index" of 0..{len(own) - 1} in "task", got {index!r}')
    return index + (len(chiefs) if task["type"] == "worker" else 0), len(chiefs + workers)


def _malformed(what: str) -> ValueError:
    return ValueError(f"{TF_CONFIG} {what}; set it to something like {_EXAMPLE}, or unset it")
