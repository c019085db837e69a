"""Histories, ages, weights and features: taken, or refused with a remedy that works."""

import math
from collections import deque
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.unit.clients.toys import ToyServer


@pytest.mark.parametrize(
    "history",
    [
        [["c01", "c02"]],
        (("c01", "c02"),),
        [deque(["c01", "c02"])],
        np.array([["c01", "c02"]]),
        [np.array(["c01", "c02"], dtype=object)],
        {"42": ["c01", "c02"]}.values(),
    ],
)
def test_a_history_comes_in_any_ordered_collection(
    client: Any, server: ToyServer, history: Any
) -> None:
    client.retrieve(["42"], history=history)
    assert server.calls[-1].history == [["c01", "c02"]]


@pytest.mark.parametrize(
    "ages",
    [
        [[60, 0.5]],
        [(60.0, np.float32(0.5))],
        np.array([[60, 0.5]]),
        [np.array([60, 0.5], np.float16)],
    ],
)
def test_ages_and_weights_are_any_numbers(client: Any, server: ToyServer, ages: Any) -> None:
    client.embed(history=[["c01", "c02"]], history_ages=ages, history_weights=ages)
    assert server.calls[-1].inputs["history_age"] == [[60.0, 0.5]]
    assert server.calls[-1].inputs["history_weight"] == [[60.0, 0.5]]


def test_iterators_are_read_once(client: Any, server: ToyServer) -> None:
    history, ages = iter([iter(["c01", "c02"])]), iter([iter([60, None])])
    client.embed(history=history, history_ages=ages, features=iter([{"x": iter(["a", "b"])}]))
    assert server.calls[-1].history == [["c01", "c02"]]
    assert server.calls[-1].inputs["history_age"] == [[60.0, -1.0]]
    assert server.calls[-1].inputs["features"] == [["x=a", "x=b"]]


def test_ages_are_sent_as_decimals(client: Any, server: ToyServer) -> None:
    # TensorFlow Serving's REST API refuses whole numbers that float32 cannot count.
    client.embed(history=[["c01"]], history_ages=[[20_000_001]])
    assert isinstance(server.calls[-1].inputs["history_age"][0][0], float)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("mobile", ["mobile"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        (("a", 1), ["a", "1"]),
        ([], []),
        (7, ["7"]),
        (np.int64(7), ["7"]),
        (True, ["True"]),
        (0.5, ["0.5"]),
        (np.float64(0.5), ["0.5"]),
        (np.array([1, 2]), ["1", "2"]),
        ("a=b", ["a=b"]),
    ],
)
def test_a_feature_is_a_string_a_number_or_several(
    client: Any, server: ToyServer, value: Any, texts: list[str]
) -> None:
    client.embed(features=[{"x": value}])
    assert server.calls[-1].inputs["features"] == [[f"x={text}" for text in texts] or [""]]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "user_ids takes a list of strings, got None; only a call with history or features"),
        ({"user_ids": [], "history": []}, "history is empty; give at least one row"),
        ({"history": []}, "history is empty; give at least one row"),
        ({"features": []}, "features is empty; give at least one row"),
        ({"user_ids": [None], "history": [["a"]]}, "user_ids takes strings, got None; leave it"),
        ({"history": "a"}, r"history takes one list of .* each user, got 'a'; use \[\['a'\]\]$"),
        ({"history": ["a", "b"]}, r"got 'a' in it; for one user use \[\['a', 'b'\]\]$"),
        ({"history": [["a"], "b"]}, "got 'b' in it$"),
        ({"history": [["a"], None]}, "got None in it$"),
        ({"history": [{"a", "b"}]}, r"\(set\) in it; a set has no order|in it; a set has no order"),
        ({"history": {"42": ["a"]}}, r"; use \[history\[user\] for user in user_ids\]$"),
        ({"history": 5}, "history takes one list of candidate ids for each user, got 5$"),
        ({"history": [["a", 5]]}, r"history\[0\] takes strings, got 5; use str\(5\)"),
        ({"history": [["a", None]]}, r"history\[0\] takes strings, got None; leave it out"),
        ({"history": [["a"], ["b", ""]]}, r"history\[1\] takes candidate ids, got ''; leave it"),
        (
            {"user_ids": ["1", "2", "3"], "history": [["a"], ["b"]]},
            r"history has 2 rows for 3 users; give one for each user, \[\] for none",
        ),
        (
            {"history": [["a"], ["b"]], "features": [{}]},
            r"features has 1 rows for 2 users; give one for each user, {} for none",
        ),
        ({"features": {"x": "a"}}, r"got {'x': 'a'}; for one user use \[{'x': 'a'}\]"),
        ({"features": "x=a"}, "features takes one mapping for each user, such as .*, got 'x=a'"),
        ({"features": [["x=a"]]}, r"features\[0\] takes a mapping such as {'device': 'mobile'}"),
        ({"features": [{5: "a"}]}, r"a feature's name in features\[0\] must be a string, got 5"),
        ({"features": [{"": "a"}]}, r"must be a non-empty string, got ''"),
        ({"features": [{"a=b": "a"}]}, "must be without '=', got 'a=b'"),
        ({"features": [{"x": None}]}, r"'x' of features\[0\] takes .*, got None; leave it out"),
        ({"features": [{"x": [math.nan]}]}, "got nan; leave it out"),
        ({"features": [{"x": math.inf}]}, "takes strings and numbers, got inf$"),
        ({"features": [{"x": b"a"}]}, r"got b'a'; use b'a'\.decode\(\)"),
        ({"features": [{"x": {"y": 1}}]}, "'x' of .* takes strings and numbers, got {'y': 1}"),
    ],
)
@pytest.mark.parametrize("call", ["retrieve", "embed"])
def test_wrong_histories_and_features_are_refused_before_anything_is_sent(
    client: Any, server: ToyServer, call: str, arguments: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        getattr(client, call)(**arguments)
    assert server.calls == []


@pytest.mark.parametrize("name", ["history_ages", "history_weights"])
@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([[1]], "has 1 rows, history has 2"),
        ([[1, 2], [3, 4]], r"\[1\] has 2 numbers for the 1 events of history\[1\]; give one for"),
        ([1, 2], r"takes one list of numbers for each user, got 1 in it; for one user use \[\[1,"),
        ([[1, "2"], [3]], r"\[0\]\[1\] must be a number, got '2'; use float\('2'\)"),
        ([[1, True], [3]], r"\[0\]\[1\] must be a number, got True$"),
        ([[1, -2], [3]], r"\[0\]\[1\] must be .*, got -2"),
        ([[1, math.inf], [3]], r"\[0\]\[1\] must be .*, got inf"),
        ([[1, math.nan], [3]], r"\[0\]\[1\] must be a number.*, got nan"),
        ([[1, timedelta(1)], [3]], r"use its total_seconds\(\)"),
    ],
)
def test_wrong_ages_and_weights_are_refused(client: Any, name: str, rows: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}.*{text}"):
        client.retrieve(history=[["a", "b"], ["c"]], **{name: rows})
    with pytest.raises(ValueError, match=f"{name} needs history; pass the events"):
        client.retrieve(["42"], **{name: rows})
    with pytest.raises(ValueError, match=f"{name} needs history; pass the events"):
        client.retrieve(features=[{}], **{name: rows})


def test_an_age_may_be_unknown_and_a_weight_must_be_moderate(client: Any) -> None:
    client.embed(history=[["a", "b"]], history_ages=[[None, 0]])
    with pytest.raises(ValueError, match=r"got nan; for an unknown age use None$"):
        client.embed(history=[["a"]], history_ages=[[math.nan]])
    with pytest.raises(ValueError, match=r"got 1732000000000; an age is the time from the event"):
        client.embed(history=[["a"]], history_ages=[[1732000000000]])
    for weight in (0, 0.0, 1e31):
        with pytest.raises(ValueError, match=r"\[0\]\[0\] must be in 1e-06 to 1e\+06, got"):
            client.embed(history=[["a"]], history_weights=[[weight]])
    with pytest.raises(ValueError, match=r"\[0\]\[0\] must be a number, got None"):
        client.embed(history=[["a"]], history_weights=[[None]])


def test_exclude_history_is_a_bool(client: Any) -> None:
    for value in ("false", ["c01"], 1, None):
        with pytest.raises(ValueError, match="exclude_history must be True or False"):
            client.retrieve(history=[["c01"]], exclude_history=value)
