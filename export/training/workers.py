"""Several processes that train one model, as TensorFlow's TF_CONFIG describes them."""

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
        strategy: Under whose scope variables are made and by which steps are run.
        index: Of this process, from 0; the first one is the chief.
        count: Of all processes.
    """

    strategy: Any
    index: int
    count: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and publishes."""
        return self.index == 0

    def sum(self, value: tf.Tensor) -> tf.Tensor:
        """Sum of what each process has, inside a step that `strategy` runs."""
        if self.count == 1:
            return value
        # A function's argument is on no device, and the sum goes to the device of the value.
        value = tf.identity(value)
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    def mean(self, value: float) -> float:
        """Mean of what each process has, the same number in all of them."""
        if self.count == 1:
            return value
        return float(_total(self)(tf.constant(value, tf.float64))) / self.count

    def agree(self, value: float) -> bool:
        """Whether all processes have the same number."""
        return self.mean(value * value) == self.mean(value) ** 2


@functools.cache  # traced once
def _total(workers: Workers) -> Any:
    @tf.function(input_signature=[tf.TensorSpec([], tf.float64)])
    def total(part: tf.Tensor) -> tf.Tensor:
        return workers.strategy.run(workers.sum, args=(part,))

    return total


def alone() -> Workers:
    """One process that trains by itself."""
    return Workers(strategy=tf.distribute.get_strategy(), index=0, count=1)


def join_workers(environ: Mapping[str, str]) -> Workers:
    """The processes that TF_CONFIG names, under TensorFlow's MultiWorkerMirroredStrategy.

    Waits until the others are there. Nothing may have run in TensorFlow before.

    Args:
        environ: Where TF_CONFIG is looked up; without it, this process is alone.

    Raises:
        ValueError: TF_CONFIG does not make sense.
    """
    text = environ.get(TF_CONFIG, "")
    if not text:
        return alone()
    index, count = _place(text)
    if count == 1:
        return alone()
    return Workers(strategy=tf.distribute.MultiWorkerMirroredStrategy(), index=index, count=count)


def _place(text: str) -> tuple[int, int]:
    """This process's number, the chief first, and how many there are."""
    try:
        config = json.loads(text)
    except json.JSONDecodeError as exc:
        raise _wrong(f"is not JSON ({exc})") from exc
    if not isinstance(config, dict) or not isinstance(config.get("cluster"), dict):
        raise _wrong('has no "cluster" with the addresses of the workers')
    cluster, task = config["cluster"], config.get("task")
    for kind, addresses in cluster.items():
        if kind not in ("chief", "worker"):
            raise _wrong(f'names {kind!r} in "cluster"; use "worker", and "chief" if you like')
        if not isinstance(addresses, list) or not all(
            isinstance(one, str) and one.rpartition(":")[2].isdigit() for one in addresses
        ):
            raise _wrong(f'must have a list of host:port under "{kind}", got {addresses!r}')
    if not isinstance(task, dict) or task.get("type") not in cluster:
        raise _wrong(f'must say in "task" which of the cluster this process is, got {task!r}')
    chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
    if len(set(chiefs + workers)) < len(chiefs + workers) or len(chiefs) > 1:
        raise _wrong("names an address twice, or more than one chief")
    index, own = task.get("index"), cluster[task["type"]]
    if type(index) is not int or not 0 <= index < len(own):
        raise _wrong(f'must have an "index" of 0..{len(own) - 1} in "task", got {index!r}')
    return index + (len(chiefs) if task["type"] == "worker" else 0), len(chiefs + workers)


def _wrong(what: str) -> ValueError:
    return ValueError(f"{TF_CONFIG} {what}; it has to look like {_EXAMPLE}, or be unset")
