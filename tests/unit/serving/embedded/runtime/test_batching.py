"""Server-side batching of a servable that records its runs."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.interfaces import Servable
from shortlist.serving.embedded.api.metrics import Metrics
from shortlist.serving.embedded.runtime.batching import Batching, BatchingServable, BatchScheduler
from shortlist.serving.embedded.runtime.batching_options import BatchingOptions
from tests.unit.serving.embedded.doubling import Arrays, Doubling


def batching(inner: Servable, **options: Any) -> BatchingServable:
    parameters = BatchingOptions(**options)
    return BatchingServable(inner, parameters, BatchScheduler(parameters, Metrics()))


def ask(servable: Servable, *values: float, timeout: float | None = None) -> list[float]:
    outputs = servable.run(
        "serving_default", {"x": np.array(values, np.float32)}, ["y"], timeout=timeout
    )
    answer: list[float] = outputs["y"].tolist()
    return answer


def together(servable: Servable, requests: Sequence[Sequence[float]]) -> list[Any]:
    """Return answers or errors of concurrent requests."""

    def answer(values: Sequence[float]) -> Any:
        try:
            return ask(servable, *values)
        except StatusError as exc:
            return exc

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(answer, requests))


def test_waiting_requests_run_together_and_each_gets_its_rows() -> None:
    inner = Doubling()
    servable = batching(inner, max_batch_size=6, max_execution_batch_size=6, batch_timeout=600.0)
    assert together(servable, [[1, 2], [3], [4, 5, 6]]) == [[2, 4], [6], [8, 10, 12]]
    assert inner.runs == [6]


def test_single_request_does_not_wait_without_a_batch_timeout() -> None:
    inner = Doubling()
    assert ask(batching(inner), 1) == [2]
    assert inner.runs == [1]


def test_bad_request_fails_alone() -> None:
    inner = Doubling()
    servable = batching(inner, max_batch_size=3, max_execution_batch_size=3, batch_timeout=5.0)
    good, bad, other = together(servable, [[1], [-1], [3]])
    assert (good, other) == ([2], [6])
    assert isinstance(bad, StatusError)
    assert bad.message.startswith("negative")


def test_batch_is_padded_to_an_allowed_size() -> None:
    inner = Doubling()
    servable = batching(
        inner, max_batch_size=8, max_execution_batch_size=8, allowed_batch_sizes=(4, 8)
    )
    assert ask(servable, 1, 2, 3) == [2, 4, 6]
    assert inner.runs == [4]


def test_large_request_is_split_if_configured() -> None:
    inner = Doubling()
    servable = batching(inner, max_batch_size=10, max_execution_batch_size=4)
    assert ask(servable, *range(10)) == [2 * value for value in range(10)]
    assert inner.runs == [4, 4, 2]


def test_empty_batch_is_answered() -> None:
    assert ask(batching(Doubling())) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "Batching Run() must have at least one input tensor"),
        ({"x": np.array(1.0)}, "Batching Run() input tensors must have at least one dimension"),
        ({"x": np.zeros(5)}, "Task size 5 is larger than maximum input batch size 4"),
    ],
)
def test_inputs_that_cannot_be_batched_are_refused(inputs: Arrays, message: str) -> None:
    servable = batching(Doubling(), max_batch_size=4, max_execution_batch_size=4)
    with pytest.raises(StatusError) as caught:
        servable.run("serving_default", inputs, ["y"])
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


def test_full_queue_refuses() -> None:
    inner = Doubling()
    inner.hold.clear()
    servable = batching(
        inner,
        max_batch_size=1,
        max_execution_batch_size=1,
        max_enqueued_batches=2,
        num_batch_threads=1,
    )
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask, servable, 1.0) for _ in range(3)]
        deadline = time.monotonic() + 10
        refusal: Any = None
        while refusal is None:
            assert time.monotonic() < deadline
            extra = pool.submit(ask, servable, 1.0)
            try:
                refusal = extra.exception(0.2)
            except TimeoutError:
                waiting.append(extra)
        assert refusal.code == Code.UNAVAILABLE
        assert refusal.message == (
            "The batch scheduling queue to which this task was submitted is full; currently 2 "
            "batches enqueued and max_enqueued_batches is 2"
        )
        inner.hold.set()
        answered = [future for future in waiting if future.exception() is None]
        assert [future.result() for future in answered] == [[2.0]] * len(answered)
        assert len(answered) >= 3


def test_request_that_times_out_in_the_queue_is_refused() -> None:
    inner = Doubling()
    servable = batching(inner, batch_timeout=0.2)
    with pytest.raises(StatusError, match="timeout exceeded while waiting") as caught:
        ask(servable, 1, timeout=0.05)
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    assert inner.runs == []


def test_different_inner_shapes_need_padding() -> None:
    rows = [np.array([[1.0, 2.0]], np.float32), np.array([[1.0, 2.0, 3.0]], np.float32)]
    for pad in (False, True):
        servable = batching(
            Doubling(),
            max_batch_size=2,
            max_execution_batch_size=2,
            batch_timeout=5.0,
            pad_variable_length_inputs=pad,
        )

        def answer(row: Any, servable: Servable = servable) -> Any:
            try:
                return servable.run("serving_default", {"x": row}, ["y"])["y"].tolist()
            except StatusError as exc:
                return exc.message

        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(answer, rows))
        if pad:
            assert answers == [[[2.0, 4.0, 2.0]], [[2.0, 4.0, 6.0]]]
        else:
            assert all(answer.startswith("Tensors with name 'x:0' from") for answer in answers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4",
         ("Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; "
         "expected 8")),
        ("num_batch_threads { value: 0 }", "num_batch_threads must be positive; was 0"),
        ("batch_timeout_micros { value: -5 }",
         "batch_timeout_micros must be non-negative; was -5"),
    ],
)  # fmt: skip
def test_contradictory_parameters_are_refused(text: str, message: str) -> None:
    parameters = text_format.Parse(text, messages.BatchingParameters())
    with pytest.raises(StatusError) as caught:
        BatchingOptions.from_message(parameters)
    assert caught.value.message == message


def test_each_version_can_have_its_own_parameters(tmp_path: Any) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    (tmp_path / "with" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    wrapping = Batching(messages.BatchingParameters(), per_model=True, metrics=Metrics())
    inner = Doubling()
    assert wrapping.wrap(inner, str(tmp_path / "without")) is inner
    servable = wrapping.wrap(inner, str(tmp_path / "with"))
    with pytest.raises(StatusError, match="larger than maximum input batch size 2"):
        ask(servable, 1, 2, 3)
    servable.close()
    assert inner.closed
