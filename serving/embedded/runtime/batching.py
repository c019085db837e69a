"""Runs waiting requests together (`--enable_batching`), with the real server's parameters.

A request that finds no open batch for its signature opens one and leads it: it waits until
the batch is full or has timed out and a place to run is free, runs the batch in its own
thread and gives each follower its rows. A request without followers never changes threads.
Checks and messages are those of TensorFlow Serving's `batching/batching_session.cc` and of
TensorFlow's `shared_batch_scheduler.h`.

Two differences are deliberate: if a merged run fails, its requests run again one by one, so
that one bad request fails alone; and an empty batch is answered, without batching.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError, invalid
from shortlist.serving.embedded.api.interfaces import Servable, always_active
from shortlist.serving.embedded.api.metrics import Metrics
from shortlist.serving.embedded.api.no_effect import say_once
from shortlist.serving.embedded.api.text_files import read_text_message
from shortlist.serving.embedded.runtime.batching_options import BatchingOptions

__all__ = ["BatchScheduler", "Batching", "BatchingServable"]

_PER_MODEL_FILE: Final = "batching_params.pbtxt"
_MAX_QUEUES: Final = 256  # of one servable: signatures and subsets of their outputs
_UNNAMED: Final = ""  # label of the queuing metric, as TensorFlow Serving leaves it

Arrays = Mapping[str, npt.NDArray[Any]]


class BatchScheduler:
    """Places to run batches, shared by all models."""

    def __init__(self, options: BatchingOptions, metrics: Metrics) -> None:
        self.metrics = metrics
        self.changed = threading.Condition()
        self.free = options.num_batch_threads


class _Task:
    """One request that waits for its rows."""

    def __init__(
        self, inputs: Arrays, rows: int, timeout: float | None, active: Callable[[], bool]
    ) -> None:
        self.inputs = inputs
        self.active = active
        self.rows = rows
        self.arrived = time.monotonic()
        self.deadline = math.inf if timeout is None else self.arrived + timeout
        self.outputs: dict[str, npt.NDArray[Any]] | None = None
        self.error: Exception | None = None
        self.done = threading.Event()

    def result(self) -> dict[str, npt.NDArray[Any]]:
        if self.error is not None:
            raise self.error
        assert self.outputs is not None
        return self.outputs


class _Batch:
    """Requests that will run together."""

    def __init__(self) -> None:
        self.tasks: list[_Task] = []
        self.rows = 0
        self.closed = False


@dataclass(frozen=True, kw_only=True)
class _Key:
    """Properties that requests must share to run together."""

    signature_name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


Run = Callable[[Arrays, float | None, Callable[[], bool]], Mapping[str, npt.NDArray[Any]]]


class _Queue:
    """Batches of one key that wait for a place to run."""

    def __init__(
        self,
        run: Run,
        tensor_names: Mapping[str, str],
        options: BatchingOptions,
        scheduler: BatchScheduler,
    ) -> None:
        self._run = run
        self._tensor_names = tensor_names
        self._options = options
        self._scheduler = scheduler
        self._waiting: deque[_Batch] = deque()

    def submit(self, task: _Task) -> dict[str, npt.NDArray[Any]]:
        """Return the answer to a request, and run its batch if it leads it.

        Raises:
            StatusError: The queue is full, or the run failed.
        """
        batch = self._join(task)
        if batch.tasks[0] is not task:
            task.done.wait()
            return task.result()
        self._take_place(batch)
        try:
            self._process(batch)
        finally:
            with self._scheduler.changed:
                self._scheduler.free += 1
                self._scheduler.changed.notify_all()
            for member in batch.tasks:
                if member.outputs is None and member.error is None:
                    member.error = StatusError(Code.INTERNAL, "the batch was not run")
                member.done.set()
        return task.result()

    def _join(self, task: _Task) -> _Batch:
        """Add a request to the open batch, or to a new one."""
        limit = self._options.max_execution_batch_size
        with self._scheduler.changed:
            last = self._waiting[-1] if self._waiting else None
            if last is None or last.closed or last.rows + task.rows > limit:
                if len(self._waiting) >= self._options.max_enqueued_batches:
                    raise StatusError(
                        Code.UNAVAILABLE,
                        "The batch scheduling queue to which this task was submitted is full; "
                        f"currently {len(self._waiting)} batches enqueued and "
                        f"max_enqueued_batches is {self._options.max_enqueued_batches}",
                    )
                if last is not None and not last.closed:
                    last.closed = True
                    self._scheduler.changed.notify_all()
                last = _Batch()
                self._waiting.append(last)
            last.tasks.append(task)
            last.rows += task.rows
            if last.rows >= limit:
                last.closed = True
                self._scheduler.changed.notify_all()
            return last

    def _take_place(self, batch: _Batch) -> None:
        """Wait until the batch can run, and close it."""
        opened = batch.tasks[0].arrived
        scheduler = self._scheduler
        with scheduler.changed:
            scheduler.changed.wait_for(
                lambda: batch.closed,
                timeout=max(0.0, opened + self._options.batch_timeout - time.monotonic()),
            )
            scheduler.changed.wait_for(lambda: scheduler.free > 0)
            scheduler.free -= 1
            batch.closed = True
            self._waiting.remove(batch)

    def _process(self, batch: _Batch) -> None:
        now = time.monotonic()
        self._scheduler.metrics.batch(_UNNAMED, [now - task.arrived for task in batch.tasks])
        deadline = max(task.deadline for task in batch.tasks)
        if deadline <= now:
            error = StatusError(
                Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue"
            )
            for task in batch.tasks:
                task.error = error
            return
        timeout = None if deadline == math.inf else deadline - now
        try:
            merged = self._merged(batch)
        except StatusError as exc:
            for task in batch.tasks:
                task.error = exc
            return
        try:
            outputs = self._run(merged, timeout, lambda: any(task.active() for task in batch.tasks))
            self._split(batch, outputs)
        except StatusError as exc:
            if len(batch.tasks) == 1:
                batch.tasks[0].error = exc
                return
            self._one_by_one(batch)

    def _one_by_one(self, batch: _Batch) -> None:
        """Run each request of a failed batch alone, so that only bad requests fail."""
        for task in batch.tasks:
            left = None if task.deadline == math.inf else task.deadline - time.monotonic()
            alone = _Batch()
            alone.tasks, alone.rows = [task], task.rows
            try:
                if left is not None and left <= 0:
                    raise StatusError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
                self._split(alone, self._run(self._merged(alone), left, task.active))
            except StatusError as exc:
                task.error = exc

    def _merged(self, batch: _Batch) -> dict[str, npt.NDArray[Any]]:
        padding = self._options.padded(batch.rows) - batch.rows
        merged = {}
        for alias in batch.tasks[0].inputs:
            arrays = [task.inputs[alias] for task in batch.tasks]
            inner = {array.shape[1:] for array in arrays}
            if len(inner) > 1:
                if not self._options.pad_variable_length_inputs:
                    raise StatusError(
                        Code.FAILED_PRECONDITION,
                        f"Tensors with name '{self._tensor_names[alias]}' from different tasks "
                        "have different shapes and padding is turned off. Set "
                        "pad_variable_length_inputs to true, or ensure that all tensors with "
                        "the same name have equal dimensions starting with the first dim.",
                    )
                arrays = _padded_to_one_shape(arrays)
            if padding:
                arrays += [arrays[-1][:1]] * padding
            merged[alias] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return merged

    def _split(self, batch: _Batch, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
        rows = self._options.padded(batch.rows)
        for array in outputs.values():
            if array.ndim == 0:
                raise StatusError(
                    Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions"
                )
            if array.shape[0] != rows:
                raise StatusError(
                    Code.FAILED_PRECONDITION,
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th "
                    "dimension sizes of the input tensors",
                )
        start = 0
        for task in batch.tasks:
            end = start + task.rows
            task.outputs = {alias: array[start:end] for alias, array in outputs.items()}
            start = end


class BatchingServable:
    """A servable that merges requests; satisfies `interfaces.Servable`."""

    def __init__(
        self, servable: Servable, options: BatchingOptions, scheduler: BatchScheduler
    ) -> None:
        self.name = servable.name
        self.version = servable.version
        self.signatures = servable.signatures
        self._servable = servable
        self._options = options
        self._scheduler = scheduler
        self._queues: dict[_Key, _Queue] = {}
        self._lock = threading.Lock()

    def run(
        self,
        signature_name: str,
        inputs: Arrays,
        output_names: Sequence[str],
        *,
        timeout: float | None = None,
        active: Callable[[], bool] = always_active,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run one signature, possibly together with other requests.

        Raises:
            StatusError: The inputs cannot be batched; also see `interfaces.Servable.run`.
        """
        names_in_order = tuple(sorted(output_names))
        key = _Key(
            signature_name=signature_name, inputs=tuple(sorted(inputs)), outputs=names_in_order
        )

        def run(
            merged: Arrays, left: float | None, anybody: Callable[[], bool]
        ) -> Mapping[str, npt.NDArray[Any]]:
            return self._servable.run(
                signature_name, merged, names_in_order, timeout=left, active=anybody
            )

        definition = self.signatures[signature_name]
        names = {alias: definition.inputs[alias].name for alias in inputs}
        outputs = self._batched(key, run, names, inputs, timeout, active)
        return {alias: outputs[alias] for alias in output_names}

    def run_tensors(
        self, feeds: Arrays, fetches: Sequence[str], *, timeout: float | None = None
    ) -> list[npt.NDArray[Any]]:
        """Run by tensor names, possibly together with other requests.

        Raises:
            StatusError: See `run`.
        """
        key = _Key(signature_name="", inputs=tuple(sorted(feeds)), outputs=tuple(fetches))

        def run(
            merged: Arrays, left: float | None, anybody: Callable[[], bool]
        ) -> Mapping[str, npt.NDArray[Any]]:
            arrays = self._servable.run_tensors(merged, fetches, timeout=left)
            return dict(zip(fetches, arrays, strict=True))

        names = {name: name for name in feeds}
        outputs = self._batched(key, run, names, feeds, timeout, always_active)
        return [outputs[name] for name in fetches]

    def close(self) -> None:
        """Free the servable, which must not run any more."""
        self._servable.close()

    def _batched(
        self,
        key: _Key,
        run: Run,
        tensor_names: Mapping[str, str],
        inputs: Arrays,
        timeout: float | None,
        active: Callable[[], bool],
    ) -> dict[str, npt.NDArray[Any]]:
        rows = _rows_of(inputs)
        if rows == 0:
            return dict(run(inputs, timeout, active))
        if rows > self._options.max_batch_size:
            raise invalid(
                f"Task size {rows} is larger than maximum input batch size "
                f"{self._options.max_batch_size}"
            )
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= _MAX_QUEUES:
                return dict(run(inputs, timeout, active))
            with self._lock:
                queue = self._queues.setdefault(
                    key, _Queue(run, tensor_names, self._options, self._scheduler)
                )
        step = self._options.max_execution_batch_size
        if rows <= step:
            return queue.submit(_Task(inputs, rows, timeout, active))
        # One after the other: each part can still share its batch with other requests.
        parts = [
            queue.submit(
                _Task(
                    {alias: array[start : start + step] for alias, array in inputs.items()},
                    min(step, rows - start),
                    timeout,
                    active,
                )
            )
            for start in range(0, rows, step)
        ]
        return {alias: np.concatenate([part[alias] for part in parts]) for alias in parts[0]}


class Batching:
    """Wraps loaded servables in batching.

    Args:
        parameters: Batching parameters of the server.
        per_model: Take the parameters of each version from its `batching_params.pbtxt`
            (`--enable_per_model_batching_parameters`); versions without it are not batched.
        metrics: Metrics of the server.
    """

    def __init__(
        self, parameters: messages.BatchingParameters, *, per_model: bool, metrics: Metrics
    ) -> None:
        self._parameters = parameters
        self._per_model = per_model
        if per_model:
            for field, _ in parameters.ListFields():
                if field.name != "num_batch_threads":
                    say_once(
                        f"--batching_parameters_file: {field.name} has no effect in the embedded "
                        "server: --enable_per_model_batching_parameters replaces it"
                    )
        threads = messages.BatchingParameters()
        if parameters.HasField("num_batch_threads"):
            threads.num_batch_threads.value = parameters.num_batch_threads.value
        self._scheduler = BatchScheduler(BatchingOptions.from_message(threads), metrics)

    def wrap(self, servable: Servable, path: str) -> Servable:
        """Return the servable with batching, unless its version has no parameters.

        Args:
            servable: A loaded servable.
            path: Folder of its SavedModel.

        Raises:
            StatusError: The parameters contradict each other, or their file does not parse.
        """
        parameters = self._parameters
        if self._per_model:
            file = Path(path, _PER_MODEL_FILE)
            if not file.exists():
                return servable
            parameters = read_text_message(file, messages.BatchingParameters())
            if parameters.HasField("num_batch_threads"):
                say_once(
                    f"{file}: num_batch_threads has no effect in the embedded server: all models "
                    "share the threads of --batching_parameters_file"
                )
        return BatchingServable(servable, BatchingOptions.from_message(parameters), self._scheduler)


def _padded_to_one_shape(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Return the arrays padded to one inner shape, each with its own first value.

    Raises:
        StatusError: The ranks differ or are too high, or an array is empty.
    """
    ranks = {array.ndim for array in arrays}
    if len(ranks) > 1 or max(ranks) > 6:
        raise invalid("Only tensors with rank from 1 to 6 can be padded.")
    shape = tuple(map(max, zip(*(array.shape[1:] for array in arrays), strict=True)))
    padded = []
    for array in arrays:
        if array.shape[1:] == shape:
            padded.append(array)
            continue
        if not array.size:
            raise invalid("Got empty tensor in batch of non-empty tensors.")
        full = np.empty((array.shape[0], *shape), array.dtype)
        full.fill(array.flat[0])
        full[tuple(slice(size) for size in array.shape)] = array
        padded.append(full)
    return padded


def _rows_of(inputs: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return the number of rows of a request's inputs.

    Raises:
        StatusError: An input has no rows, or the inputs differ in their number.
    """
    if not inputs:
        raise invalid("Batching Run() must have at least one input tensor")
    rows = None
    for array in inputs.values():
        if array.ndim == 0:
            raise invalid("Batching Run() input tensors must have at least one dimension")
        if rows not in (None, array.shape[0]):
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        rows = array.shape[0]
    assert rows is not None
    return rows
