"""Rows in parts: the same answers, and an end when the caller has gone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.runtime.parts import (
    RunTimes,
    check_bounds,
    row_inputs,
    rows_of,
    run_parts,
)

ROWS = frozenset(("user_id", "exclude"))


def definition(inputs: str, outputs: str) -> messages.SignatureDef:
    signature = messages.SignatureDef()
    for name in inputs.split():
        signature.inputs[name].name = name
    for name in outputs.split():
        signature.outputs[name].name = name
    return signature


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "expected"),
    [
        ("serving_default", "user_id", "candidate_ids scores", {"user_id"}),
        (
            "retrieve",
            "user_id exclude k exclude_seen filter_any filter_all filter_min filter_max",
            "candidate_ids scores known_user servable_version",
            {"user_id", "exclude"},
        ),
        ("embed", "age country", "query_embedding servable_version", {"age", "country"}),
        ("serving_default", "user_id", "output_1 output_2", set()),
        ("serving_default", "user_id", "candidate_ids diversity", set()),
        ("recommend", "user_id", "candidate_ids scores", set()),
    ],
)
def test_only_signatures_of_the_contract_are_cut(
    name: str, inputs: str, outputs: str, expected: set[str]
) -> None:
    assert row_inputs(name, definition(inputs, outputs)) == expected


def inputs_of(rows: int) -> dict[str, Any]:
    return {
        "user_id": np.arange(rows),
        "exclude": np.arange(2 * rows).reshape(rows, 2),
        "k": np.int32(3),
        "filter_any": np.arange(5),
    }


def test_inputs_with_different_rows_are_not_cut() -> None:
    inputs = inputs_of(100)
    assert rows_of(inputs, ROWS) == 100
    assert rows_of({**inputs, "exclude": np.zeros((1, 2))}, ROWS) is None
    assert rows_of({**inputs, "exclude": np.array(1.0)}, ROWS) is None
    assert rows_of(inputs, frozenset()) is None


class Servable:
    """Returns its rows; takes a millisecond of a fake clock for each."""

    def __init__(self, times: RunTimes) -> None:
        self.times = times
        self.parts: list[int] = []

    def __call__(
        self, inputs: Mapping[str, Any], rows: int, timeout: float | None
    ) -> dict[str, Any]:
        assert len(inputs["user_id"]) == len(inputs["exclude"]) == rows
        assert len(inputs["filter_any"]) == 5
        self.parts.append(rows)
        self.times.add(rows, rows / 1000)
        return {"y": inputs["user_id"] + inputs["exclude"][:, 1] + inputs["k"]}


def test_parts_give_the_answer_of_one_run_and_take_a_tenth_of_a_second_each() -> None:
    times = RunTimes()
    run = Servable(times)
    inputs = inputs_of(250)
    whole = run(inputs, 250, None)["y"]
    run.parts.clear()
    parts = run_parts(run, inputs, ROWS, times, timeout=10, active=lambda: True)["y"]
    assert parts.tolist() == whole.tolist()
    assert run.parts == [100, 100, 50]


@pytest.mark.parametrize(
    ("seconds_alone", "rows"), [(0.0, 64), (0.001, 64), (0.016, 25), (1.0, 16)]
)
def test_size_of_the_first_part(seconds_alone: float, rows: int) -> None:
    """A row alone costs more than a row among others, so it says only a little."""
    times = RunTimes()
    if seconds_alone:
        times.add(1, seconds_alone)
    assert times.part_rows == rows


def test_runs_are_short_by_what_they_took_so_far() -> None:
    times = RunTimes()
    assert not times.is_short(1)
    times.add(1, 0.01)
    assert times.is_short(4)
    assert not times.is_short(5)
    assert not times.is_short(20)  # as if each row was alone
    times.add(100, 0.1)
    assert times.is_short(20)
    assert not times.is_short(60)


def test_caller_who_has_gone_ends_the_run() -> None:
    times = RunTimes()
    run = Servable(times)
    with pytest.raises(StatusError) as ended:
        run_parts(run, inputs_of(500), ROWS, times, timeout=None, active=lambda: not run.parts)
    assert ended.value.code is Code.CANCELLED
    assert run.parts == [64]


def test_deadline_ends_the_run() -> None:
    times = RunTimes()
    with pytest.raises(StatusError) as ended:
        run_parts(Servable(times), inputs_of(500), ROWS, times, timeout=0, active=lambda: True)
    assert ended.value.code is Code.DEADLINE_EXCEEDED


def test_needless_bounds_are_refused() -> None:
    check_bounds({"filter_min": np.zeros(100), "filter_any": np.zeros(5000)})
    with pytest.raises(StatusError, match="filter_max has 101 values; this server takes 100"):
        check_bounds({"filter_max": np.zeros(101)})
